# Common part of the studies on photographs. Source it with the arguments PYTHON STUDY, the folder that
# prepare.py makes. One classifier is attacked, or two, and three that no attack has seen judge.
python=$1 study=$2

network() { echo "checkpoint:$study/classifiers/$1.safetensors"; } # NAME

first=$(network resnet18_pqf) second=$(network tf_efficientnet_lite0)
unseen=("$(network mobilenetv2_100_tf)" "$(network tf_efficientnet_lite1)" "$(network vit_small_dinov2_imagenette10)")
judges=()
for each in "${unseen[@]}"; do judges+=(--judge "$each"); done

labels_for() { # SIZE PHOTOGRAPHS: label file of those that the surrogate gets right
    local labels=$study/photos/known-$2-$1.csv
    [[ -f $labels ]] || "$python" "$(dirname "$0")/photographs/known.py" "$study/photos/${2%-*}" \
        "$study/photos/$2.csv" "$first" "$1" "$labels" >&2
    echo "$labels"
}

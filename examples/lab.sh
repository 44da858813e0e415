# Common part of the studies on the lab. Source it with the arguments ATTNSHIFT OUT [RUN…]. Three
# classifiers are attacked, and four that no attack has seen judge. With RUN… only these runs are
# made. A study that was interrupted continues when it is called again.
set -euo pipefail
attnshift=$1 out=$2
shift 2
source "$(dirname "$0")/parts.sh" "$@"
judges=(--judge lab:coatnet --judge lab:nfnet --judge lab:byobnet --judge lab:robust)
purification=strength=0.15,schedule_steps=20
three=(--surrogate lab:resnet --surrogate lab:efficientnet --surrogate lab:mobilevit)

images() { # COUNT [SPLIT FOLDER]
    local folder=$out/${3:-images}
    [[ -f $folder/labels.csv ]] || "$attnshift" lab render "$folder" --count "$1" --split "${2:-test}"
}

run() { # NAME ARGUMENT…: attack and judge
    local name=$1
    shift
    asked "$name" || return 0
    "$attnshift" attack "$out/images" --labels "$out/images/labels.csv" --threads 1 --out "$out/$name" "$@"
    "$attnshift" evaluate "$out/$name" "${judges[@]}"
}

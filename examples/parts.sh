# Parts of a study. Source it with those that were asked for; none means all.
wanted=" ${*:-} "

asked() { [[ $wanted == "  " || $wanted == *" $1 "* ]]; } # NAME: whether this part is to be made

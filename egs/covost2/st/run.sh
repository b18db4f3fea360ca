#!/usr/bin/env bash
# CoVoST 2: read sentences of Common Voice translated into English from 21 languages, or from English into 15, as a cascade
# (recogniser, then a translator of its text) and end to end (the recogniser's encoder with a decoder that writes the
# translation), beside the settings of fairseq's S2T examples. Each direction has a folder of its own, such as fr-en/, which gets
# RESULTS.md.
# shellcheck disable=SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""      # the folder that has <source>/validated.tsv and clips/: Common Voice's release 4, which Mozilla gives
source="fr"    # language spoken: en, or into English ar ca cy de es et fa fr id it ja lv mn nl pt ru sl sv-SE ta tr zh-CN
target="en"    # language translated into: en, or from English ar ca cy de et fa id ja lv mn sl sv-SE ta tr zh-CN
mini=false     # a hundred clips in the corpus' layout (French to English) through all stages, with small models, in mini/
systems="recogniser e2e cascade"  # rows of the table, of conf/{recogniser,e2e,mt}.yaml
conf=conf      # folder of the models' YAML
held_out="dev" # on which options of the searches are chosen
splits="dev test"                 # what is decoded and scored
heard="attention.beam"            # the recogniser's search that the cascade translates
exp=exp        # folder of models, logs and results: another one for another conf
jobs=2         # processes that prepare features
preset=""      # the machine that trains: laptop, gpu24, 8x80, nodes (egs/conf/presets) or a file of your own
processes=""   # that train a model together, one a GPU: otherwise the preset's, or 1
. parse_options.sh
one_of --systems "$systems" "recogniser e2e cascade"
[ "$mini" = false ] || [ "$source-$target" = fr-en ] || refuse "--mini is French into English: leave out --source and --target."
case $source-$target in
  en-*) one_of --target "$target" "ar ca cy de et fa id ja lv mn sl sv-SE ta tr zh-CN" ;;
  *-en) one_of --source "$source" "en ar ca cy de es et fa fr id it ja lv mn nl pt ru sl sv-SE ta tr zh-CN" ;;
  *) refuse "CoVoST 2 has no $source into $target: one of --source and --target has to be en." ;;
esac
[ "$mini" = false ] || unless_given conf=conf/mini
[ "$mini" = true ] || work_in "$source-$target"
. words.sh
table=covost_v2.${source}_$target.tsv direction="--source $source --target $target" target=${target%-*} # translations are kept by ISO 639-1: sv of sv-SE

if stage 0 "Translations"; then
  if [ "$mini" = true ]; then
    fetch covost2
  else
    run download --out "downloads/$table" -- python -m local.covost2 download $direction --out downloads
  fi
fi

stage 1 "Manifests" && manifests covost2 $direction --translations "${miniature:-downloads}"

stage 2 "Features" && features

if stage 3 "Tokens"; then
  tokens source --target text --type char
  tokens target --target "translation.$target" --type char
fi

stage 5 "Training" && train_parts "$systems"

stage 6 "Decoding, options chosen on held-out speech" && decode_parts "$systems"

stage 7 "Translation of what was recognised" && among "$systems" cascade && cascade

stage 8 "Scores" && score_parts "$systems" --title "CoVoST 2, $source to $target"

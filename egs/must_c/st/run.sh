#!/usr/bin/env bash
# MuST-C: English TED talks translated into one of 14 languages, as a cascade (recogniser, then a translator of its text) and end to
# end (the recogniser's encoder with a decoder that writes the translation), beside the settings of fairseq's S2T examples.
# Each language is translated into in a folder of its own, such as en-de/, which gets RESULTS.md.
# shellcheck disable=SC2086,SC2046  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""      # the folder that has en-<target>, of any release; the corpus can no longer be downloaded
target="de"    # language translated into: ar cs de es fa fr it ja nl pt ro ru tr vi zh, as the release has them
mini=false     # a hundred segments in the corpus' layout (into French) through all stages, with small models, in mini/
systems="recogniser e2e cascade"  # rows of the table, of conf/{recogniser,e2e,mt}.yaml
conf=conf      # folder of the models' YAML
held_out="dev" # on which options of the searches are chosen
splits="dev tst-COMMON tst-HE"    # what is decoded and scored
heard="attention.beam"            # the recogniser's search that the cascade translates
exp=exp        # folder of models, logs and results: another one for another conf
jobs=2         # processes that prepare features
preset=""      # the machine that trains: laptop, gpu24, 8x80, nodes (egs/conf/presets) or a file of your own
processes=""   # that train a model together, one a GPU: otherwise the preset's, or 1
. parse_options.sh
one_of --systems "$systems" "recogniser e2e cascade"
one_of --target "$target" "ar cs de es fa fr it ja nl pt ro ru tr vi zh"
pieces=5000 target_pieces=8000
# the prompts that a miniature is made of are spoken in English, es, fr, it and ru
[ "$mini" = false ] || unless_given conf=conf/mini target=fr splits="dev tst-COMMON" pieces=60 target_pieces=100
[ "$mini" = true ] || work_in "en-$target"
. words.sh

stage 0 "The corpus" && fetch must_c --target "$target"

stage 1 "Manifests" && manifests must_c --target "$target" --splits train $(printf '%s\n' $held_out $splits | sort -u)

stage 2 "Features" && features

if stage 3 "Tokens"; then
  tokens source --target text --type bpe --vocab-size "$pieces"
  tokens target --target "translation.$target" --type bpe --vocab-size "$target_pieces"
fi

stage 5 "Training" && train_parts "$systems"

stage 6 "Decoding, options chosen on held-out speech" && decode_parts "$systems"

stage 7 "Translation of what was recognised" && among "$systems" cascade && cascade

stage 8 "Scores" && score_parts "$systems" --title "MuST-C, English to $target"

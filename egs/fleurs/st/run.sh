#!/usr/bin/env bash
# FLEURS: sentences of Wikipedia read in 102 languages, any of them translated into any other. Few-shot: ten hours to learn from.
# From scratch: a cascade (recogniser, then a translator of its text) and end to end (the recogniser's encoder with a decoder that
# writes the translation). Into English also Whisper as it is ("whisper-zero-shot") and fine-tuned for both tasks ("whisper").
# Each pair has a folder of its own, such as fr-en/, which gets RESULTS.md.
# shellcheck disable=SC2086,SC2034  # options that hold several words are meant to be split; words.sh reads the others
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""      # the folder that has a folder for each language, Google's or Hugging Face's (otherwise stage 0 fetches two)
source=fr_fr   # language that is spoken: fr_fr as the corpus has it, or fr
target=en_us   # language translated into
mini=false     # a few dozen prompts in the corpus' layout through all stages, with small models, in mini/
systems="whisper-zero-shot whisper recogniser e2e cascade"  # rows of the table; into English only: the first two
whisper=openai/whisper-base  # a hub name, or a folder in transformers' layout
conf=conf      # folder of the models' YAML
held_out="dev" # on which options of the searches are chosen
splits="dev test"      # what is decoded and scored
heard="attention.beam" # the recogniser's search that the cascade translates
exp=exp        # folder of models, logs and results: another one for another conf
jobs=2         # processes that prepare features
preset=""      # the machine that trains: laptop, gpu24, 8x80, nodes (egs/conf/presets) or a file of your own
processes=""   # that train a model together, one a GPU: otherwise the preset's, or 1
. parse_options.sh
one_of --systems "$systems" "whisper-zero-shot whisper recogniser e2e cascade"
pieces=500
[ "$mini" = false ] || unless_given conf=conf/mini whisper=downloads/miniature/whisper pieces=80
pair="--source $source --target $target"
codes=$(python -m local.fleurs codes $pair 2>&1) || refuse "${codes#error: }"
target=${codes#* } # words.sh and the manifests have ISO 639
[ "$target" = en ] || unless_given systems="recogniser e2e cascade"
case "$target $systems" in en\ *) ;; *whisper*) refuse "--systems: Whisper translates into English alone, leave it out." ;; esac
[ "$mini" = true ] || work_in "${codes% *}-$target"
. words.sh
whispers=$(printf '%s\n' $systems | grep whisper || true)
others=$(printf '%s\n' $systems | grep -v whisper || true)

if stage 0 "Download"; then
  fetch fleurs $pair
  [ -z "$whispers" ] || pretrained whisper "$whisper"
fi

stage 1 "Manifests" && manifests fleurs $pair

if stage 2 "Features"; then
  [ -z "$others" ] || features
  [ -z "$whispers" ] || of whisper features downloads/whisper/config.json
fi

if stage 3 "Tokens"; then
  if [ -n "$others" ]; then
    tokens source --target text --type bpe --vocab-size "$pieces"
    tokens target --target "translation.$target" --type bpe --vocab-size "$pieces"
  fi
  [ -z "$whispers" ] || tokens whisper --target text translation.en --type pretrained --path downloads/whisper --all-tokens
fi

if stage 5 "Training"; then
  for system in $whispers; do of whisper train "$system" downloads/whisper/config.json; done
  train_parts "$others"
fi

if stage 6 "Decoding, options chosen on held-out speech"; then
  for system in $whispers; do of whisper decode "$system" conf/searches-whisper.yaml; done
  decode_parts "$others"
fi

stage 7 "Translation of what was recognised" && among "$systems" cascade && cascade

stage 8 "Scores" && score_parts "$systems" --casing cased lower --title "FLEURS, ${codes% *} to $target"

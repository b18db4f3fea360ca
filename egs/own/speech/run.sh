#!/usr/bin/env bash
# Your own data: a recogniser, and with --target a translator of speech, for a Kaldi data directory, Lhotse manifests or a table of
# audio files and texts (README.md says what they look like). Recognition: "recogniser" from scratch, "recogniser-large" with a larger
# encoder, "whisper", fine-tuned, which needs the least data. Translation: "cascade" and "e2e" from scratch, "whisper-st", fine-tuned.
# The result is RESULTS.md in the folder work/ (in the folder of --name, and of --exp, if these are given).
# shellcheck disable=SC2046,SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                # your data: a folder or a file
name=work                # the folder below this one in which all is made: another one for other data
format=""                # kaldi, lhotse or table, where the files do not show it
language=""              # code of the language that is spoken (en), where the data do not say it
target=""                # code of the language to translate into (fr); without it nothing is translated
columns=""               # of a table, where they have other names: "text=what_is_said audio=clip"
splits_of=""             # which parts are which, where they have other names: "train=train_clean dev=dev_clean"
split_by=auto            # auto: by the data's own splits, or by speaker; given, speaker, recording or text
dev=0.05                 # part of the speakers that is held out to choose on, where the data have no dev
test=0.05                # the same, to be scored
text=plain               # transcripts: keep (as they are), lower (in lower case), plain (also without punctuation)
allow_pipes=false        # true: run the commands that the data name in place of files
mini=false               # sixty utterances through all stages, with small models, in mini/
kind=table               # in which of three layouts the miniature is taken: kaldi, lhotse or table
pieces=500               # tokens that words are cut into; 0: characters (for less than some hours)
systems=""               # what is made; recogniser, or with --target cascade and e2e; conf/*.yaml has all
whisper=openai/whisper-base  # a hub name, or a folder in transformers' layout
conf=conf                # folder of the models' YAML
held_out="dev"           # splits on the first of which scales are chosen
splits="dev test"        # what is decoded and scored
exp=exp                  # folder of models, logs and results: another one for another conf
jobs=2                   # processes that prepare features
preset=""                # the machine that trains, of egs/conf/presets: laptop, gpu24, 8x80, nodes
processes=""             # that train a model together: one a GPU (otherwise what the preset has)
. parse_options.sh
[ "$mini" = false ] || unless_given conf=conf/mini target=en pieces=0 dev=0.1 test=0.1
[ "$mini" = true ] || work_in "$name"
. words.sh
systems=${systems:-$([ -n "$target" ] && echo "cascade e2e" || echo recogniser)}
one_of --systems "$systems" "recogniser recogniser-large whisper cascade e2e whisper-st"
one_of --kind "$kind" "kaldi lhotse table"
case $systems in *cascade* | *e2e* | *-st*) [ -n "$target" ] || refuse "--systems $systems: say with --target into which language." ;; esac
[ -n "$corpus" ] || [ "$mini" = true ] || refuse "give your data with --corpus, or try --mini; README.md says what they look like."

whispers=$(printf '%s\n' $systems | grep '^whisper' || true)
others=$(printf '%s\n' $systems | grep -v '^whisper' || true)
type=$([ "$pieces" -gt 0 ] && echo "bpe --vocab-size $pieces" || echo char)
heard=ctc.prefix_beam+6-gram # what the cascade translates

if stage 0 "Miniature, pretrained models"; then
  fetch own
  [ -z "$whispers" ] || pretrained whisper "$whisper"
fi
[ "$mini" = false ] || place=$place/$kind

stage 1 "Manifests" && manifests own --split-by "$split_by" --dev "$dev" --test "$test" --text "$text" \
  ${format:+--format "$format"} ${language:+--language "$language"} ${target:+--target "$target"} \
  ${columns:+--columns $columns} ${splits_of:+--splits $splits_of} $([ "$allow_pipes" = false ] || echo --allow-pipes)

if stage 2 "Features"; then
  [ -z "$others" ] || features
  [ -z "$whispers" ] || of whisper features downloads/whisper/config.json
fi

if stage 3 "Tokens"; then
  [ -z "$others" ] || tokens source --target text --type $type
  [ -z "$others" ] || [ -z "$target" ] || tokens target --target "translation.$target" --type $type
  ! among "$systems" whisper || tokens whisper --target text --type pretrained --path downloads/whisper --all-tokens
  ! among "$systems" whisper-st ||
    tokens whisper_target --target "translation.$target" --type pretrained --path downloads/whisper --all-tokens
fi

if stage 4 "Language models" && [ -n "$others" ]; then
  ngram 6gram 6 --lang data/lang_source
  ngram 3gram 3
  ! has k2 || graph 3gram data/lang_source data/lm/3gram.arpa
fi

if stage 5 "Training"; then
  train_parts "$systems"
  ! among "$systems" recogniser-large || train recogniser-large
  ! among "$systems" whisper || of whisper train whisper downloads/whisper/config.json
  ! among "$systems" whisper-st || of whisper train whisper-st downloads/whisper/config.json "heads.attention.target=translation.$target"
fi

if stage 6 "Decoding, scales chosen on dev"; then
  for system in $(parts "$systems"); do
    case $system in
      mt) ;;
      whisper*) of whisper decode "$system" conf/searches-whisper.yaml ;;
      e2e) decode e2e conf/searches-e2e.yaml ;;
      *) decode "$system" "conf/searches-recogniser.yaml $(! has k2 || echo conf/searches-k2.yaml)" ;;
    esac
  done
fi

stage 7 "Translation of text" && among "$systems" cascade && cascade

stage 8 "Scores" && score_parts "$systems"

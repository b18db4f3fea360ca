#!/usr/bin/env bash
# Asterisk prompts: one multilingual recogniser for five languages, from nothing to WER and CER.
# One encoder with two heads on the transcript, CTC and transducer, trained from scratch; then language models of the
# transcripts (n-grams of words and characters, an LSTM), graphs, and all ways to decode with them, tuned on dev.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2046,SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
mini=false                   # sixty prompts through all stages, with a small model, in mini/
languages="en es fr it ru"   # languages that are recognised
systems="recogniser"         # what is trained, of conf/*/<system>.yaml
conf=conf/laptop             # conf/laptop or conf/gpu
held_out="dev"               # splits on the first of which scales are chosen
splits="dev test"            # what is decoded and scored
exp=exp                      # folder of models, logs and results: another one for another conf
jobs=2                       # processes that prepare features
processes=1                  # that train a system together: one a GPU
. parse_options.sh
[ "$mini" = false ] || unless_given conf=conf/mini languages="en fr"
. words.sh
one_of --systems "$systems" "$(with_conf)"

lang=data/lang_char
searches=conf/searches.yaml
! has k2 || searches+=" conf/searches-k2.yaml"

stage 0 "Download" && fetch asterisk --languages $languages

stage 1 "Manifests" && manifests asterisk --languages $languages

stage 2 "Features" && features

stage 3 "Tokens" && tokens char --target text --type char

if stage 4 "Language models"; then
  ngram word_3gram 3
  ngram word_4gram 4
  ngram char_2gram 2 --lang $lang
  ngram char_6gram 6 --lang $lang
  ! has k2 || graph word_3gram $lang data/lm/word_3gram.arpa
  ! has k2 || graph word_4gram $lang data/lm/word_4gram.arpa
  neural_lm char_lstm "$texts"
fi

stage 5 "Training" && for system in $systems; do train "$system"; done

stage 6 "Decoding, scales chosen on dev" && for system in $systems; do decode "$system" "$searches"; done

stage 8 "Scores" && scores "$systems" --baseline $(outputs "$systems" transducer.greedy)

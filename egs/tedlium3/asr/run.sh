#!/usr/bin/env bash
# TED-LIUM 3: recognition of 452 hours of English talks, as icefall's zipformer recipe: one encoder with CTC and transducer
# heads, decoded greedily, with beams, with an n-gram and an LSTM of pieces, with graphs of n-grams of words.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""             # the folder TEDLIUM_release-3 or the one that it is in (otherwise stage 0 downloads it, 54 GB)
lm_data=""            # the folder of Kaldi's two ARPA files (otherwise stage 0 downloads them, where the 4-gram is used)
mini=false            # nine talks of a few seconds in the corpus' layout through all stages, with a small model, in mini/
lms="5-gram 4-gram"   # 5-gram (of pieces), 4-gram (a graph; Kaldi's), 3-gram (a graph; our own), lstm (days on a CPU)
lm_lines=50000        # of each of the corpus' six text files, that 5-gram and 3-gram are made of beside the transcripts
systems="recogniser"  # what is trained, of conf/<system>.yaml; recogniser-musan: with noise, which stage 0 fetches (11 GB)
conf=conf             # folder of the models' YAML
held_out="dev"        # splits on which scales are chosen
splits="dev test"     # what is decoded and scored
exp=exp               # folder of models, logs and results: another one for another conf
jobs=2                # processes that prepare features
preset=""             # the machine that trains: laptop, gpu24, 8x80, nodes or a YAML file (egs/conf/presets)
processes=""          # that train a model together: one a GPU (otherwise as the preset says)
. parse_options.sh
pieces=500 epoch=0.05
[ "$mini" = false ] ||
  unless_given conf=conf/mini lms="5-gram 4-gram 3-gram lstm" lm_lines=4 systems=recogniser-musan pieces=60 epoch=1
one_of --lms "$lms" "5-gram 4-gram 3-gram lstm"
. words.sh
one_of --systems "$systems" "$(with_conf)"

given=$lm_data lm_data=${lm_data:-${miniature:-downloads}/tedlium3-lm}
has k2 || lms=$(printf '%s\n' $lms | grep -v '[34]-gram' || true)
lang=data/lang_bpe_500
some=data/lm/first_$lm_lines.en.gz
searches=conf/searches.yaml
for name in $lms $(! has k2 || echo k2); do searches+=" conf/searches-$name.yaml"; done

if stage 0 "Download"; then
  fetch tedlium3
  case $systems in *-musan*) noises musan ;; esac
  [ -n "$given$miniature" ] || ! among "$lms" 4-gram ||
    run download-lm --out "$lm_data" -- python -m local.tedlium3 ngrams --out "$lm_data"
fi

stage 1 "Manifests" && manifests tedlium3

stage 2 "Features" && features

stage 3 "Tokens" && tokens bpe_500 --target text --type bpe --vocab-size "$pieces"

# text <name> [options]: sentences of the corpus' text, data/lm/<name>.en.gz
text() {
  run "text-$1" --in "$place" --out "data/lm/$1.en.gz" -- \
    python -m local.tedlium3 text --corpus "$place" --out "data/lm/$1.en.gz" "${@:2}"
}

stage 4 "Language models" && for lm in $lms; do
  case $lm in
    5-gram) text "first_$lm_lines" --lines "$lm_lines" && ngram pieces_5gram 5 --lang $lang --text "$some" ;;
    4-gram)
      graph $lm $lang "$lm_data/4gram_small.arpa.gz"
      graph $lm-big $lang "$lm_data/4gram_big.arpa.gz" --only-g
      ;;
    3-gram)
      text "first_$lm_lines" --lines "$lm_lines" && ngram words_3gram 3 --text "$some" --cutoffs 0 1 1
      graph $lm $lang data/lm/words_3gram.arpa
      ;;
    lstm)
      ngram pieces_2gram 2 --lang $lang
      text all # an epoch is a part of it, so that there is more than one validation
      neural_lm lstm data/lm/all.en.gz "data.train=[{path: data/lm/all.en.gz, weight: $epoch}, $texts]"
      ;;
  esac
done

stage 5 "Training" && for system in $systems; do train "$system"; done

stage 6 "Decoding, scales chosen on dev" && for system in $systems; do decode "$system" "$searches"; done

stage 8 "Scores" && scores "$systems"

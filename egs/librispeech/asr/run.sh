#!/usr/bin/env bash
# LibriSpeech: recognition of English read aloud, 960 hours (or 100, or the 5 of mini-LibriSpeech), as icefall's zipformer recipe:
# one encoder with CTC and transducer heads, decoded greedily, with beams, with graphs of the published n-grams, with an LSTM.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2046,SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""            # the folder LibriSpeech or the one that it is in (otherwise stage 0 downloads it)
lm_data=""           # the folder of OpenSLR 11's files (otherwise stage 0 downloads those in use)
mini=false           # ninety utterances in the corpus' layout through all stages, with a small model, in mini/
parts=960            # 960, 100 or mini: hours of training speech, and the 5 of mini-LibriSpeech
lms="3-gram"         # 3-gram (a graph), 4-gram (rescores its lattices: wants 40 GB of memory), lstm (days on a CPU)
systems="recogniser" # what is trained, of conf/<system>.yaml; recogniser-musan: with noise, which stage 0 fetches (11 GB)
conf=conf            # folder of the models' YAML
held_out="dev-clean" # splits on the first of which scales are chosen
splits="dev-clean dev-other test-clean test-other" # what is decoded and scored
exp=exp              # folder of models, logs and results: another one for another conf
jobs=2               # processes that prepare features
preset=""            # the machine that trains: laptop, gpu24, 8x80, nodes or a YAML file (egs/conf/presets)
processes=""         # that train a model together: one a GPU (otherwise as the preset says)
. parse_options.sh
pieces=500 epoch=0.05
[ "$parts" != mini ] || unless_given held_out=dev-clean-2 splits=dev-clean-2
[ "$mini" = false ] || unless_given conf=conf/mini lms="3-gram 4-gram lstm" systems=recogniser-musan pieces=60 epoch=1
one_of --lms "$lms" "3-gram 4-gram lstm"
. words.sh
one_of --systems "$systems" "$(with_conf)"

given=$lm_data lm_data=${lm_data:-${miniature:-downloads}/librispeech-lm}
has k2 || lms=$(printf '%s\n' $lms | grep -v gram || true)
lang=data/lang_bpe_500
searches=conf/searches.yaml
for name in $lms $(! has k2 || echo k2); do searches+=" conf/searches-$name.yaml"; done

if stage 0 "Download"; then
  fetch librispeech --parts "$parts"
  case $systems in *-musan*) noises musan ;; esac
  [ -n "$given$miniature" ] || [ -z "$lms" ] || run download-lm --out downloads/librispeech-lm -- \
    python -m local.librispeech_lm download --out downloads/librispeech-lm \
    --parts $(printf '%s\n' $lms | sed 's/^3-gram$/3-gram.pruned.1e-7/; s/^lstm$/text/')
fi

stage 1 "Manifests" && manifests librispeech --parts "$parts"

stage 2 "Features" && features

stage 3 "Tokens" && tokens bpe_500 --target text --type bpe --vocab-size "$pieces"

stage 4 "Language models" && for lm in $lms; do
  case $lm in
    3-gram) graph $lm $lang "$lm_data/3-gram.pruned.1e-7.arpa.gz" ;;
    4-gram) graph $lm $lang "$lm_data/4-gram.arpa.gz" --only-g ;;
    lstm)
      ngram pieces_2gram 2 --lang $lang
      text=$lm_data/librispeech-lm-norm.txt.gz # an epoch is a part of it, so that there is more than one validation
      neural_lm lstm "$text" "data.train={path: $text, weight: $epoch}" \
        "data.valid=data/manifests/${held_out%% *}_supervisions.jsonl.gz"
      ;;
  esac
done

stage 5 "Training" && for system in $systems; do train "$system"; done

stage 6 "Decoding, scales chosen on held-out speech" && for system in $systems; do decode "$system" "$searches"; done

stage 8 "Scores" && scores "$systems"

#!/usr/bin/env bash
# Asterisk prompts: recognition of five languages and translation into English, from nothing to WER and BLEU.
# From scratch: "joint" learns the transcript (CTC) and the English translation (transducer) with one encoder,
# "translation" the translation alone. On demand: Whisper base as it is ("whisper-zero-shot") and fine-tuned for both
# tasks ("whisper"). Where Whisper cannot be had, what needs it is left out.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086,SC2046  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
languages="en es fr it ru"   # languages that are recognised
systems="joint translation"  # what is trained, of conf/*/<system>.yaml; also whisper-zero-shot, whisper
whisper=openai/whisper-base  # a hub name, or a folder in transformers' layout
conf=conf/laptop             # conf/laptop or conf/gpu
splits="dev test"            # what is decoded and scored
exp=exp                      # folder of models, logs and results: another one for another conf
beam=4                       # hypotheses kept by the beam searches
jobs=2                       # processes that prepare features
processes=1                  # that train a system together: one a GPU
parallel=2                   # systems that are trained and decoded at the same time, sharing the cores
. parse_options.sh

results=RESULTS.md
[ "$exp" = exp ] || results=$exp/RESULTS.md
train="$(launch "$processes") -m steps.train"
folder() { case $1 in whisper*) echo data/whisper ;; *) echo data ;; esac }
cuts=$(printf 'data/%s/cuts.jsonl.gz ' $splits)
cuts_of() { printf "$(folder "$1")/%s/cuts.jsonl.gz " $splits; }

if stage 0 "Download"; then
  [ -n "$corpus" ] ||
    run download --out downloads -- python -m local.asterisk download --out downloads --languages $languages
  case $systems in *whisper*) # status 3: it cannot be had, and the sentence says so
    python -m steps.pretrained.fetch "$whisper" --out downloads/whisper || [ $? -eq 3 ] ;;
  esac
fi
if [ ! -e downloads/whisper/config.json ]; then
  kept=$(for system in $systems; do case $system in whisper*) ;; *) echo "$system" ;; esac; done | xargs)
  [ "$kept" = "$systems" ] || echo "downloads/whisper is not there: going on with $kept" >&2
  systems=$kept
fi
decoded=$(printf "$exp/%s/decode " $systems)

stage 1 "Manifests" &&
  run manifests --in "${corpus:-downloads}" --out data/manifests -- \
    python -m local.asterisk manifests --corpus "${corpus:-downloads}" --out data/manifests --languages $languages

if stage 2 "Features"; then
  run features --in "data/manifests $conf/features.yaml" --out "data/train/cuts.jsonl.gz $cuts" -- \
    python -m steps.prepare.features --manifests data/manifests --out data --config "$conf/features.yaml" --jobs "$jobs"
  case $systems in *whisper*)
    run features-whisper --in "data/manifests $conf/whisper-features.yaml" --out data/whisper -- \
      python -m steps.prepare.features --manifests data/manifests --out data/whisper \
      --config "$conf/whisper-features.yaml" --jobs "$jobs" ;;
  esac
fi

if stage 3 "Token sets"; then
  run lang-text --in data/train/cuts.jsonl.gz --out data/lang_char/tokens.txt -- \
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text --type char --out data/lang_char
  run lang-translation --in data/train/cuts.jsonl.gz --out data/lang_bpe_en/tokens.txt -- \
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target translation.en --same-language \
    --type bpe --vocab-size 250 --out data/lang_bpe_en
  case $systems in *whisper*)
    run lang-whisper --in data/train/cuts.jsonl.gz --out data/lang_whisper/tokens.txt -- \
      python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text translation.en --type pretrained \
      --path downloads/whisper --all-tokens --out data/lang_whisper ;;
  esac
fi

stage 5 "Training" "$parallel" && for model in $systems; do
  run "train-$model" --in "$(folder "$model")/train/cuts.jsonl.gz data/lang_* $conf/$model.yaml" \
    --out "$exp/$model/averaged.pt" -- $train "$conf/$model.yaml" --out "$exp/$model"
done

stage 6 "Decoding" "$parallel" && for model in $systems; do
  case $model in
    joint) search="ctc:greedy ctc:prefix_beam transducer:greedy transducer:modified_beam" ;;
    translation) search="transducer:greedy transducer:modified_beam" ;;
    *) search="transcript:beam translation:beam" ;;
  esac
  run "decode-$model" --in "$exp/$model/averaged.pt $(cuts_of "$model")" --out "$exp/$model/decode" -- \
    python -m steps.decode --model "$exp/$model" --cuts $(cuts_of "$model") --search $search --beam "$beam" \
    --out "$exp/$model/decode"
done

if stage 8 "Scores"; then
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results" \
    --casing lower --punctuation remove # Whisper writes both, the references have neither
  cat "$results"
fi

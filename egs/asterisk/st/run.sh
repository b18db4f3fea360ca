#!/usr/bin/env bash
# Asterisk prompts: recognition of five languages and translation into English, from nothing to WER and BLEU.
# Two systems are compared. "joint" learns the transcript (CTC) and the English translation (transducer) with one
# encoder; "translation" learns the translation alone. Both are trained from scratch, equally long.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
languages="en es fr it ru"   # languages that are recognised
systems="joint translation"  # what is trained, of conf/*/<system>.yaml
conf=conf/laptop             # conf/laptop or conf/gpu
splits="dev test"            # what is decoded and scored
exp=exp                      # folder of models, logs and results: another one for another conf
beam=4                       # hypotheses kept by the beam searches
jobs=2                       # processes that prepare features
processes=1                  # that train a system together: one a GPU
parallel=2                   # systems that are trained and decoded at the same time, sharing the cores
. parse_options.sh

cuts=$(printf 'data/%s/cuts.jsonl.gz ' $splits)
decoded=$(for system in $systems; do printf "$exp/$system/decode/%s.* " $splits; done)
results=RESULTS.md
[ "$exp" = exp ] || results=$exp/RESULTS.md
train="$(launch "$processes") -m steps.train"

stage 0 "Download" && [ -z "$corpus" ] &&
  run download --out downloads -- python -m local.asterisk download --out downloads --languages $languages

stage 1 "Manifests" &&
  run manifests --in "${corpus:-downloads}" --out data/manifests -- \
    python -m local.asterisk manifests --corpus "${corpus:-downloads}" --out data/manifests --languages $languages

stage 2 "Features" &&
  run features --in "data/manifests $conf/features.yaml" --out "data/train/cuts.jsonl.gz $cuts" -- \
    python -m steps.prepare.features --manifests data/manifests --out data --config "$conf/features.yaml" --jobs "$jobs"

if stage 3 "Token sets"; then
  run lang-text --in data/train/cuts.jsonl.gz --out data/lang_char/tokens.txt -- \
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target text --type char --out data/lang_char
  run lang-translation --in data/train/cuts.jsonl.gz --out data/lang_bpe_en/tokens.txt -- \
    python -m steps.lang.prepare --cuts data/train/cuts.jsonl.gz --target translation.en --same-language \
    --type bpe --vocab-size 250 --out data/lang_bpe_en
fi

stage 5 "Training" "$parallel" && for system in $systems; do
  run "train-$system" --in "data/train/cuts.jsonl.gz data/lang_char data/lang_bpe_en $conf/$system.yaml" \
    --out "$exp/$system/averaged.pt" -- $train "$conf/$system.yaml" --out "$exp/$system"
done

stage 6 "Decoding" "$parallel" && for system in $systems; do
  search="transducer:greedy transducer:modified_beam"
  [ "$system" != joint ] || search="ctc:greedy ctc:prefix_beam $search"
  run "decode-$system" --in "$exp/$system/averaged.pt $cuts" --out "$exp/$system/decode" -- \
    python -m steps.decode --model "$exp/$system" --cuts $cuts --search $search --beam "$beam" \
    --out "$exp/$system/decode"
done

if stage 8 "Scores"; then
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results"
  cat "$results"
fi

#!/usr/bin/env bash
# Asterisk prompts: recognition of five languages and translation into English, from nothing to WER and BLEU.
# From scratch: "joint" learns the transcript (CTC) and the English translation (transducer) with one encoder,
# "translation" the translation alone. Pretrained: Whisper base as it is ("whisper-zero-shot") and fine-tuned for both
# tasks ("whisper"); what the latter hears is also translated as text ("cascade"). On demand: "llm", a language model that
# listens through Whisper's encoder. Where Whisper cannot be had, what needs it is left out.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).

# shellcheck disable=SC2086,SC2046  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
languages="en es fr it ru"   # languages that are recognised
systems="whisper-zero-shot whisper joint translation cascade"  # rows of the table; also llm
whisper=openai/whisper-base  # a hub name, or a folder in transformers' layout
llm=HuggingFaceTB/SmolLM2-135M-Instruct  # the same
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
chosen() { case " $systems " in *" $1 "*) ;; *) return 1 ;; esac }
folder() { case $1 in whisper* | llm) echo data/whisper ;; *) echo data ;; esac }
cuts=$(printf 'data/%s/cuts.jsonl.gz ' $splits)
cuts_of() { printf "$(folder "$1")/%s/cuts.jsonl.gz " $splits; }
one_of --systems "$systems" "joint translation whisper-zero-shot whisper cascade llm"

if stage 0 "Download"; then
  [ -n "$corpus" ] ||
    run download --out downloads -- python -m local.asterisk download --out downloads --languages $languages
  case $systems in *whisper* | *cascade* | *llm*) # status 3: it cannot be had, and the sentence says so
    python -m steps.pretrained.fetch "$whisper" --out downloads/whisper || [ $? -eq 3 ] ;;
  esac
  ! chosen llm || run llm --out downloads/llm -- python -m steps.pretrained.fetch "$llm" --out downloads/llm
fi
if [ ! -e downloads/whisper/config.json ]; then
  kept=$(for system in $systems; do case $system in whisper* | cascade | llm) ;; *) echo "$system" ;; esac; done | xargs)
  [ "$kept" = "$systems" ] || echo "downloads/whisper is not there: going on with ${kept:-no system}" >&2
  [ -n "$kept" ] || exit 3
  systems=$kept
fi
# the cascade is the fine-tuned Whisper and a translator of text
models=$(printf '%s\n' $systems | sed 's/^cascade$/whisper mt/' | tr ' ' '\n' | awk '!seen[$0]++')
decoded=$(printf "$exp/%s/decode " $(printf '%s\n' $systems $models | sort -u))

stage 1 "Manifests" &&
  run manifests --in "${corpus:-downloads}" --out data/manifests -- \
    python -m local.asterisk manifests --corpus "${corpus:-downloads}" --out data/manifests --languages $languages

if stage 2 "Features"; then
  run features --in "data/manifests $conf/features.yaml" --out "data/train/cuts.jsonl.gz $cuts" -- \
    python -m steps.prepare.features --manifests data/manifests --out data --config "$conf/features.yaml" --jobs "$jobs"
  case $models in *whisper* | *llm*)
    run features-whisper --in "data/manifests $conf/whisper-features.yaml downloads/whisper/config.json" --out data/whisper -- \
      python -m steps.prepare.features --manifests data/manifests --out data/whisper \
      --config "$conf/whisper-features.yaml" --jobs "$jobs" ;;
  esac
fi

if stage 3 "Token sets"; then
  texts=data/train/cuts.jsonl.gz
  lang() { run "lang-$1" --in "$texts ${tokenizer:-}" --out "data/lang_$1/tokens.txt" -- \
    python -m steps.lang.prepare --cuts "$texts" --out "data/lang_$1" "${@:2}"; }
  lang char --target text --type char
  lang bpe_en --target translation.en --same-language --type bpe --vocab-size 250
  ! chosen cascade || lang bpe --target text --type bpe --vocab-size 1000
  case $models in *whisper*)
    tokenizer=downloads/whisper/tokenizer.json lang whisper --target text translation.en \
      --type pretrained --path downloads/whisper --all-tokens ;;
  esac
  ! chosen llm || tokenizer=downloads/llm/tokenizer.json lang llm --target translation.en \
    --type pretrained --path downloads/llm --all-tokens
fi

train_models() {
  local model
  for model in "$@"; do
    run "train-$model" --in "$(folder "$model")/train/cuts.jsonl.gz data/lang_* $conf/$model.yaml" \
      --out "$exp/$model/averaged.pt" -- $train "$conf/$model.yaml" --out "$exp/$model"
  done
}
# the large ones keep all cores busy, the small ones do not
large=$(printf '%s\n' $models | grep 'whisper\|llm' || true)
small=$(printf '%s\n' $models | grep -v 'whisper\|llm' || true)
stage 5 "Training" && train_models $large
stage 5 "Training of small models, side by side" "$parallel" && train_models $small

decode_models() {
  local model search options
  for model in "$@"; do
    options=""
    case $model in
      mt) continue ;;
      joint) search="ctc:greedy ctc:prefix_beam transducer:greedy transducer:modified_beam" ;;
      translation) search="transducer:greedy transducer:modified_beam" ;;
      llm) search="llm:beam" ;;
      *) # loops of Whisper end
        search="transcript:beam translation:beam" options="--precision auto --no-repeat-ngram 5 --max-length-ratio 0.25"
        case $model in
          whisper) options+=" --nbest $beam" ;;
          *) options+=" --max-duration 15" ;; # 30 s are encoded for each utterance
        esac ;;
    esac
    run "decode-$model" --in "$exp/$model/averaged.pt $(cuts_of "$model")" --out "$exp/$model/decode" -- \
      python -m steps.decode --model "$exp/$model" --cuts $(cuts_of "$model") --search $search --beam "$beam" $options \
      --out "$exp/$model/decode"
  done
}
stage 6 "Decoding" && decode_models $large
stage 6 "Decoding with small models, side by side" "$parallel" && decode_models $small

stage 7 "Translation of text" && chosen cascade && for split in $splits; do
  translate() { # name, system, output, further options
    run "$1-$split" --in "$exp/mt/averaged.pt $recognised/hyp.jsonl" --out "$3" -- python -m steps.translate \
      --model "$exp/mt" --in "$recognised" --system "$2" --beam "$beam" --out "$3" "${@:4}"
  }
  recognised=$exp/whisper/decode/$split.transcript.beam
  translate translate cascade "$exp/cascade/decode/$split.mt.beam" --nbest "$beam"
  translate translate-reference "cascade, true transcripts" "$exp/mt/decode/$split.reference.beam" --reference
done

if stage 8 "Scores"; then
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results" \
    --casing lower --punctuation remove # Whisper writes both, the references have neither
  cat "$results"
fi

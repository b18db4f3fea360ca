#!/usr/bin/env bash
# Mboshi to French, three ways on one corpus with one scorer: a cascade (recogniser, then text translation), end-to-end
# models (transducer and attention; from filter banks, on a frozen Whisper, and on one that was fine-tuned for recognition:
# frozen again, or tuned on with its own decoder), and a large language model that listens; "combination" takes from these
# what most of them agree with. "blind" translates without listening: what a language model alone would score.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086,SC2046  # options that hold several words are meant to be split
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""           # the authors' folder, cloned (otherwise stage 0 fetches it)
systems="blind fbank-transducer fbank-aed frozen-transducer frozen-aed tuned-aed whisper-aed cascade llm combination"  # rows of the table
whisper=openai/whisper-base              # pretrained speech encoder (and decoder): a hub name or a folder
llm=HuggingFaceTB/SmolLM2-135M-Instruct  # large language model: a hub name or a folder
conf=conf/laptop    # a YAML for each model
splits="valid dev"  # what is decoded and scored; anything that is chosen is chosen on valid
exp=exp             # folder of models, logs and results: another one for another conf
beam=8              # hypotheses kept by the beam searches
jobs=2              # processes that prepare features
processes=1         # that train a model together: one a GPU
parallel=2          # models that are trained and decoded at the same time, sharing the cores
. parse_options.sh

results=RESULTS.md
[ "$exp" = exp ] || results=$exp/RESULTS.md
train="$(launch "$processes") -m steps.train"
chosen() { case " $systems " in *" $1 "*) ;; *) return 1 ;; esac }
features() { case $1 in mt) echo manifests ;; blind | fbank-*) echo fbank ;; frozen-*) echo frozen ;; tuned-*) echo tuned ;; *) echo whisper ;; esac }
pretrained() { case $1 in fbank) ;; *) echo downloads/whisper/config.json ;; esac }
cuts() { printf "data/$(features "$1")/%s/cuts.jsonl.gz " $splits; }

one_of --systems "$systems" \
  "blind fbank-transducer fbank-aed frozen-transducer frozen-aed tuned-aed whisper-aed cascade llm combination"

combined=$(printf '%s\n' $systems | grep -x 'whisper-aed\|tuned-aed\|frozen-aed\|cascade\|llm' || true)
! chosen combination || [ -n "$combined" ] ||
  refuse "--systems has 'combination' but none to combine: add whisper-aed, tuned-aed, frozen-aed, cascade or llm."

# most systems are one model; four begin with the recogniser, and the cascade has a text translator besides
first="" models=$(printf '%s\n' $systems | sed 's/^cascade$/mt/; /^combination$/d')
case $systems in *cascade* | *whisper-aed* | *tuned-aed* | *llm*) first=recogniser ;; esac
kinds=$(for model in $first $models; do features "$model"; done | sort -u | grep -v 'manifests\|tuned')
recogniser=$exp/recogniser/averaged.pt

if stage 0 "Download"; then
  [ -n "$corpus" ] || run corpus --out downloads/mboshi-french-parallel-corpus -- \
    python -m local.mboshi download --out downloads
  case $kinds in *whisper* | *frozen*)
    run whisper --out downloads/whisper -- python -m steps.pretrained.fetch "$whisper" --out downloads/whisper ;;
  esac
  ! chosen llm || run llm --out downloads/llm -- python -m steps.pretrained.fetch "$llm" --out downloads/llm
fi

stage 1 "Manifests" &&
  run manifests --in "${corpus:-downloads/mboshi-french-parallel-corpus}" --out data/manifests -- \
    python -m local.mboshi manifests --corpus "${corpus:-downloads}" --out data/manifests

make_features() { # kind, further inputs, overrides
  run "features-$1" --in "data/manifests $conf/$1.yaml $(pretrained "$1") $2" --out "data/$1" -- \
    python -m steps.prepare.features --manifests data/manifests --out "data/$1" --config "$conf/$1.yaml" \
    --splits $(printf '%s\n' train valid $splits | sort -u) --jobs "$jobs" "${@:3}"
}

stage 2 "Features" && for kind in $kinds; do make_features "$kind" ""; done

texts=data/manifests/train_supervisions.jsonl.gz
if stage 3 "Token sets"; then
  lang() { run "lang-$1" --in "$texts ${tokenizer:-}" --out "data/lang_$1/tokens.txt" -- \
    python -m steps.lang.prepare --cuts "$texts" --out "data/lang_$1" "${@:2}"; }
  lang mdw --target text --type char
  lang mdw_bpe --target text --type bpe --vocab-size 1000
  lang fr --target translation.fr --type bpe --vocab-size 1000
  ! chosen whisper-aed || tokenizer=downloads/whisper/tokenizer.json lang whisper --target translation.fr \
    --type pretrained --path downloads/whisper
  ! chosen llm || tokenizer=downloads/llm/tokenizer.json lang llm --target translation.fr \
    --type pretrained --path downloads/llm
fi

stage 4 "Language model of what is said" && [ -n "$first" ] &&
  run lm --in "$texts data/lang_mdw" --out data/lm/mdw_6gram.arpa -- \
    python -m steps.lm.ngram train --cuts "$texts" --lang data/lang_mdw --order 6 --out data/lm/mdw_6gram.arpa

train_model() { # name, further inputs, overrides
  run "train-$1" --in "data/$(features "$1") data/lang_* $conf/$1.yaml $2" --out "$exp/$1/averaged.pt" -- \
    $train "$conf/$1.yaml" --out "$exp/$1" "${@:3}"
}

# the large models keep all cores busy, the small ones do not
stage 5 "Training" && for model in $first $models; do
  case $model in
    recogniser) train_model $model "" ;;
    whisper-aed) train_model $model "$recogniser" "init.encoder=$recogniser" "init.heads.ctc=$recogniser" ;;
    llm) train_model $model "$recogniser" "init.encoder=$recogniser" ;;
  esac
done

stage 5 "Features of the recogniser" && chosen tuned-aed && make_features tuned "$recogniser" "encoder.init=$recogniser"

stage 5 "Training of small models, side by side" "$parallel" && for model in $models; do
  case $model in whisper-aed | llm) ;; *) train_model $model "" ;; esac
done

stage 6 "Fusion with the language model, chosen on valid" && [ -n "$first" ] &&
  run tune --in "$recogniser data/whisper/valid data/lm conf/searches.yaml" --out "$exp/recogniser/searches.yaml" -- \
    python -m steps.tune --model "$exp/recogniser" --cuts data/whisper/valid/cuts.jsonl.gz --searches conf/searches.yaml \
    --out "$exp/recogniser/searches.yaml"

stage 6 "Decoding" "$parallel" && for model in $first $models; do
  case $model in
    mt) continue ;;
    recogniser) search="--searches $exp/recogniser/searches.yaml" ;;
    *-transducer) search="--search ctc:prefix_beam transducer:modified_beam" ;;
    llm) search="--search llm:greedy llm:beam --no-repeat-ngram 3" ;;
    blind) search="--search attention:beam --no-repeat-ngram 3" ;;
    *) search="--search ctc:prefix_beam attention:greedy attention:beam --no-repeat-ngram 3" ;;
  esac
  run "decode-$model" --in "$exp/$model/averaged.pt $(cuts "$model")" --out "$exp/$model/decode" -- \
    python -m steps.decode --model "$exp/$model" --cuts $(cuts "$model") $search --beam "$beam" --nbest "$beam" \
    --out "$exp/$model/decode"
done

stage 7 "Translation of text" && chosen cascade && for split in $splits; do
  translate() { # name, system, output, further options
    run "$1-$split" --in "$exp/mt/averaged.pt $recognised/hyp.jsonl" --out "$3" -- python -m steps.translate \
      --model "$exp/mt" --in "$recognised" --system "$2" --beam "$beam" --out "$3" "${@:4}"
  }
  recognised=$exp/recogniser/decode/$split.ctc.prefix_beam+6-gram
  translate translate cascade "$exp/cascade/decode/$split.mt.beam" --nbest "$beam"
  translate translate-reference "cascade, true transcripts" "$exp/mt/decode/$split.reference.beam" --reference
done

stage 7 "Combination" && chosen combination && for split in $splits; do
  outputs=$(for system in $combined; do
    case $system in cascade) best=mt.beam ;; llm) best=llm.beam ;; *) best=attention.beam ;; esac
    echo "$exp/$system/decode/$split.$best"
  done)
  run "combine-$split" --in "$(printf '%s/hyp.jsonl ' $outputs)" --out "$exp/combination/decode/$split.mbr.bleu" -- \
    python -m steps.combine --in $outputs --scale 0.3 --out "$exp/combination/decode/$split.mbr.bleu"
done

if stage 8 "Scores"; then
  decoded=$(printf "$exp/%s/decode " $(printf '%s\n' $first $systems $models | sort -u))
  compared="" selected=""
  ! chosen blind || compared="--baseline $(printf "$exp/blind/decode/%s.attention.beam " $splits)"
  case " $splits " in *" valid "*) selected="--select valid" ;; esac
  run score --in "$decoded" --out "$results" -- python -m steps.score $decoded --report "$results" \
    --casing lower cased $selected $compared --title "Mboshi to French"
  cat "$results"
fi

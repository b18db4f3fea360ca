#!/usr/bin/env bash
# Mboshi to French, three ways on one corpus with one scorer: a cascade (recogniser, then text translation), end-to-end
# models (transducer and attention; from filter banks, on a frozen Whisper, and on one that was fine-tuned for recognition:
# frozen again, or tuned on with its own decoder), and a large language model that listens; "combination" takes from these
# what most of them agree with. "blind" translates without listening: what a language model alone would score.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).
# shellcheck disable=SC2086,SC2034,SC2154  # options that hold several words are meant to be split; words.sh reads the others
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""           # the authors' folder, cloned (otherwise stage 0 fetches it)
mini=false          # a few dozen prompts in the corpus' layout through all stages, with small models, in mini/
systems="blind fbank-transducer fbank-aed frozen-transducer frozen-aed tuned-aed whisper-aed cascade llm combination"  # rows of the table
whisper=openai/whisper-base              # pretrained speech encoder (and decoder): a hub name or a folder
llm=HuggingFaceTB/SmolLM2-135M-Instruct  # large language model: a hub name or a folder
conf=conf/laptop    # a YAML for each model
held_out="valid"    # anything that is chosen is chosen here
splits="valid dev"  # what is decoded and scored
exp=exp             # folder of models, logs and results: another one for another conf
jobs=2              # processes that prepare features
processes=1         # that train a model together: one a GPU
parallel=2          # models that are trained and decoded at the same time, sharing the cores
. parse_options.sh

one_of --systems "$systems" \
  "blind fbank-transducer fbank-aed frozen-transducer frozen-aed tuned-aed whisper-aed cascade llm combination"
valid=100 pieces=1000
[ "$mini" = false ] ||
  unless_given conf=conf/mini whisper=downloads/miniature/whisper llm=downloads/miniature/llm valid=8 pieces=60
. words.sh
[ "$place" != downloads ] || place=downloads/mboshi-french-parallel-corpus # stage 0 puts models beside it

combined=$(printf '%s\n' $systems | grep -x 'whisper-aed\|tuned-aed\|frozen-aed\|cascade\|llm' || true)
! among "$systems" combination || [ -n "$combined" ] ||
  refuse "--systems has 'combination' but none to combine: add whisper-aed, tuned-aed, frozen-aed, cascade or llm."

# most systems are one model; four begin with the recogniser, and the cascade has a text translator besides
first="" models=$(printf '%s\n' $systems | sed 's/^cascade$/mt/; /^combination$/d')
case $systems in *cascade* | *whisper-aed* | *tuned-aed* | *llm*) first=recogniser ;; esac
kind() { case $1 in blind | fbank-*) echo fbank ;; frozen-*) echo frozen ;; tuned-*) echo tuned ;; *) echo whisper ;; esac }
kinds=$(for model in $first $models; do kind "$model"; done | sort -u | grep -v tuned)
recogniser=$exp/recogniser/averaged.pt

if stage 0 "Download"; then
  fetch mboshi
  case $kinds in *whisper* | *frozen*) pretrained whisper "$whisper" ;; esac
  ! among "$systems" llm || pretrained llm "$llm"
fi

stage 1 "Manifests" && manifests mboshi --valid "$valid"

stage 2 "Features" && for kind in $kinds; do
  of "$kind" features "$([ "$kind" = fbank ] || echo downloads/whisper/config.json)"
done

if stage 3 "Token sets"; then
  tokens mdw --target text --type char
  tokens mdw_bpe --target text --type bpe --vocab-size "$pieces"
  tokens fr --target translation.fr --type bpe --vocab-size "$pieces"
  ! among "$systems" whisper-aed || tokens whisper --target translation.fr --type pretrained --path downloads/whisper
  ! among "$systems" llm || tokens llm --target translation.fr --type pretrained --path downloads/llm
fi

stage 4 "Language model of what is said" && [ -n "$first" ] && ngram mdw_6gram 6 --lang data/lang_mdw

# the large models keep all cores busy, the small ones do not
stage 5 "Training" && for model in $first $models; do
  case $model in
    recogniser) of whisper train recogniser downloads/whisper/config.json ;;
    whisper-aed) of whisper train $model "$recogniser" "init.encoder=$recogniser" "init.heads.ctc=$recogniser" ;;
    llm) of whisper train llm "$recogniser downloads/llm/config.json" "init.encoder=$recogniser" ;;
  esac
done

stage 5 "Features of the recogniser" && among "$systems" tuned-aed && of tuned features "$recogniser" "encoder.init=$recogniser"

stage 5 "Training of small models, side by side" "$parallel" && for model in $models; do
  case $model in
    whisper-aed | llm) ;;
    mt) of whisper train mt "$texts" data.valid=data/manifests/valid_supervisions.jsonl.gz ;; # of texts alone
    *) of "$(kind "$model")" train "$model" ;;
  esac
done

stage 6 "Decoding, fusion with the language model chosen on valid" "$parallel" && for model in $first $models; do
  case $model in
    mt) continue ;;
    recogniser | blind | llm) searches=$model ;;
    *-transducer) searches=transducer ;;
    *) searches=attention ;;
  esac
  in_turn of "$(kind "$model")" decode "$model" "conf/searches-$searches.yaml"
done

stage 7 "Translation of text" && among "$systems" cascade && for split in $splits; do
  heard=$exp/recogniser/decode/$split.ctc.prefix_beam+6-gram
  translate cascade mt "$heard" "$split" mt.beam --beam 8 --nbest 8
  row="cascade, true transcripts" translate mt mt "$heard" "$split" reference.beam --beam 8 --reference
done

stage 7 "Combination" && among "$systems" combination && for split in $splits; do
  outputs=$(for system in $combined; do
    case $system in cascade) best=mt.beam ;; llm) best=llm.beam ;; *) best=attention.beam ;; esac
    echo "$exp/$system/decode/$split.$best"
  done)
  run "combine-$split" --in "$(printf '%s/hyp.jsonl ' $outputs)" --out "$exp/combination/decode/$split.mbr.bleu" -- \
    python -m steps.combine --in $outputs --scale 0.3 --out "$exp/combination/decode/$split.mbr.bleu"
done

if stage 8 "Scores"; then
  compared="" selected=""
  ! among "$systems" blind || [ "$systems" = blind ] || compared="--baseline $(outputs blind attention.beam)"
  ! among "$splits" valid || selected="--select valid"
  scores "$(printf '%s\n' $first $systems $models | sort -u | xargs)" --casing lower cased $selected $compared \
    --title "Mboshi to French"
fi

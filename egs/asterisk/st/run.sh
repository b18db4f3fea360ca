#!/usr/bin/env bash
# Asterisk prompts: recognition of five languages and translation into English, from nothing to WER and BLEU.
# From scratch: "joint" learns the transcript (CTC) and the English translation (transducer) with one encoder,
# "translation" the translation alone. Pretrained: Whisper base as it is ("whisper-zero-shot") and fine-tuned for both
# tasks ("whisper"); what the latter hears is also translated as text ("cascade"). On demand: "llm", a language model that
# listens through Whisper's encoder. Where Whisper cannot be had, what needs it is left out.
# The result is RESULTS.md in this folder (in the folder of --exp, if that is given).

# shellcheck disable=SC2086,SC2034  # options that hold several words are meant to be split; words.sh reads the others
cd "$(dirname "$0")" && . ../../../path.sh || exit

corpus=""                    # a folder that has the packages already (otherwise stage 0 downloads them)
mini=false                   # sixty prompts through all stages, with small models, in mini/
languages="en es fr it ru"   # languages that are recognised
systems="whisper-zero-shot whisper joint translation cascade"  # rows of the table; also llm
whisper=openai/whisper-base  # a hub name, or a folder in transformers' layout
llm=HuggingFaceTB/SmolLM2-135M-Instruct  # the same
conf=conf/laptop             # conf/laptop or conf/gpu
held_out="dev"               # splits on the first of which trainings are validated
splits="dev test"            # what is decoded and scored
exp=exp                      # folder of models, logs and results: another one for another conf
jobs=2                       # processes that prepare features
processes=1                  # that train a system together: one a GPU
parallel=2                   # systems that are trained and decoded at the same time, sharing the cores
. parse_options.sh
known="joint translation whisper-zero-shot whisper cascade llm" pieces=1000 english_pieces=250
[ "$mini" = false ] || unless_given conf=conf/mini languages="en fr" whisper=downloads/miniature/whisper \
  llm=downloads/miniature/llm systems="$known" pieces=100 english_pieces=60
one_of --systems "$systems" "$known"
. words.sh

if stage 0 "Download"; then
  fetch asterisk --languages $languages
  case $systems in *whisper* | *cascade* | *llm*) # status 3: it cannot be had, and the sentence says so
    python -m steps.pretrained.fetch "$whisper" --out downloads/whisper || [ $? -eq 3 ] ;;
  esac
  ! among "$systems" llm || pretrained llm "$llm"
fi
if [ ! -e downloads/whisper/config.json ]; then
  kept=$(for system in $systems; do case $system in whisper* | cascade | llm) ;; *) echo "$system" ;; esac; done | xargs)
  [ "$kept" = "$systems" ] || echo "downloads/whisper is not there: going on with ${kept:-no system}" >&2
  [ -n "$kept" ] || exit 3
  systems=$kept
fi
# the cascade is the fine-tuned Whisper and a translator of text; the large ones keep all cores busy, the small ones do not
models=$(printf '%s\n' $systems | sed 's/^cascade$/whisper mt/' | tr ' ' '\n' | awk '!seen[$0]++')
large=$(printf '%s\n' $models | grep 'whisper\|llm' || true)
small=$(printf '%s\n' $models | grep -v 'whisper\|llm' || true)

stage 1 "Manifests" && manifests asterisk --languages $languages

if stage 2 "Features"; then
  features
  [ -z "$large" ] || of whisper features downloads/whisper/config.json
fi

if stage 3 "Token sets"; then
  tokens char --target text --type char
  tokens bpe_en --target translation.en --same-language --type bpe --vocab-size "$english_pieces"
  ! among "$systems" cascade || tokens bpe --target text --type bpe --vocab-size "$pieces"
  case $models in *whisper*)
    tokens whisper --target text translation.en --type pretrained --path downloads/whisper --all-tokens ;;
  esac
  ! among "$systems" llm || tokens llm --target translation.en --type pretrained --path downloads/llm --all-tokens
fi

stage 5 "Training" && for model in $large; do of whisper train "$model" downloads/whisper/config.json; done
stage 5 "Training of small models, side by side" "$parallel" && for model in $small; do train "$model"; done

stage 6 "Decoding" && for model in $large; do
  case $model in
    whisper) of whisper decode whisper conf/searches-whisper.yaml --precision auto ;;
    whisper-zero-shot) # 30 s are encoded for each utterance
      of whisper decode whisper-zero-shot conf/searches-whisper.yaml --precision auto --max-duration 15 ;;
    llm) of whisper decode llm conf/searches-llm.yaml ;;
  esac
done
stage 6 "Decoding with small models, side by side" "$parallel" && for model in $small; do
  [ "$model" = mt ] || in_turn decode "$model" "conf/searches-$model.yaml"
done

stage 7 "Translation of text" && among "$systems" cascade && for split in $splits; do
  heard=$exp/whisper/decode/$split.transcript.beam
  translate cascade mt "$heard" "$split" mt.beam --beam 4 --nbest 4
  row="cascade, true transcripts" translate mt mt "$heard" "$split" reference.beam --beam 4 --reference
done

# Whisper writes case and punctuation, the references have neither
stage 8 "Scores" && scores "$(printf '%s\n' $systems $models | awk '!seen[$0]++' | xargs)" --casing lower --punctuation remove

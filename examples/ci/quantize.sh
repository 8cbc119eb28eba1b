#!/bin/sh
# Quantizes MODEL with DATA to OUTPUT, and says in words what the exit code means: quantize.sh MODEL DATA OUTPUT
#
# Needs `msq-onnx` and `jq` on the path.
set -u

model=$1 data=$2 output=$3
msq-onnx "$model" -o "$output" --calib "$data" --max-drop "${MAX_DROP:-1%}" --json >"$output.json"
code=$?
case $code in
0) jq -r '"\(.float_bytes) → \(.bytes) bytes, lost \(.quality.lost * 100) %"' "$output.json" ;;
5) jq -r '"missed: \(.search.target); the nearest plan loses \(.quality.lost * 100) %"' "$output.json" ;;
3) echo "the model cannot be quantized" ;;
4) echo "the data does not fit the model" ;;
*) echo "failed with exit code $code" ;;
esac
exit "$code"

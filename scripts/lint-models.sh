#!/bin/sh
# Lints quantized models, for pre-commit: scripts/lint-models.sh [--profile=NAME] MODEL...
#
# Exits with 1 if a model has findings that are errors or is no model. Float models give a warning and pass.
# MSQ_ONNX_BINARY names the binary; `msq-onnx` on the path unless set.
set -u

binary=${MSQ_ONNX_BINARY:-msq-onnx}
profile=--profile=ort-cpu
failed=0
for each in "$@"; do
    case $each in
    --profile=*)
        profile=$each
        continue
        ;;
    -*)
        echo "error: \`$each\` is no option of this hook; expected \`--profile=NAME\`" >&2
        exit 2
        ;;
    esac
    if [ "$(head -c 24 -- "$each" 2>/dev/null)" = "version https://git-lfs." ]; then
        echo "$each: not linted, it is a pointer of Git LFS: git lfs pull" >&2
        continue
    fi
    if ! said=$("$binary" lint "$profile" -- "$each" 2>&1); then
        failed=1
        printf '%s:\n%s\n' "$each" "$said"
    fi
done
exit "$failed"

#!/usr/bin/env bash
# Builds the archive of a release: a static binary with licences, README, completions and manual pages.
#
#     bash scripts/release.sh [FOLDER]
#
# leaves msq-onnx-VERSION-TARGET.tar.gz and its .sha256 in FOLDER, `dist` unless given. See docs/release.md.
set -euo pipefail

folder=$(realpath -m -- "${1:-dist}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -d "$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-musl/lib" ]; then
    target=x86_64-unknown-linux-musl
    # Nothing but assembly is compiled, which needs no headers of musl.
    export CC_x86_64_unknown_linux_musl=${CC_x86_64_unknown_linux_musl:-cc}
else
    target=x86_64-unknown-linux-gnu
    echo "note: glibc is linked statically; for musl instead: rustup target add x86_64-unknown-linux-musl"
fi

# Paths of this machine stay out of the binary. As a target is named, build scripts do not get these flags.
RUSTFLAGS="-C target-feature=+crt-static"
RUSTFLAGS+=" --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/msq-onnx"
export RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP=symbols
cargo build --release --locked --target "$target"

binary=${CARGO_TARGET_DIR:-target}/$target/release/msq-onnx
if ldd "$binary" 2>&1 | grep -F '=>'; then
    echo "error: the binary is not static"
    exit 1
fi
version=$("$binary" -V)
name=msq-onnx-${version#msq-onnx }-$target

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/$name/completions" "$stage/$name/man"
cp "$binary" LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md "$stage/$name"
"$binary" man "$stage/$name/man"
"$binary" completions bash >"$stage/$name/completions/msq-onnx.bash"
"$binary" completions zsh >"$stage/$name/completions/_msq-onnx"
"$binary" completions fish >"$stage/$name/completions/msq-onnx.fish"
"$binary" completions powershell >"$stage/$name/completions/msq-onnx.ps1"
"$binary" completions elvish >"$stage/$name/completions/msq-onnx.elv"

# Order, time, owner and rights in the archive are the same wherever it is made.
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
tar -C "$stage" --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -c "$name" |
    gzip -9n >"$stage/$name.tar.gz"
(cd "$stage" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
mkdir -p "$folder"
mv "$stage/$name.tar.gz" "$stage/$name.tar.gz.sha256" "$folder"
cat "$folder/$name.tar.gz.sha256"

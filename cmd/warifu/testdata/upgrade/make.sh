#!/bin/sh
# Makes the data of an earlier release anew: make.sh COMMIT, in a clone of this repository with its history. The test
# that reads it, upgrade_test.go, drives the program of that commit.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(git -C "$here" rev-parse --show-toplevel)
commit=$(git -C "$root" rev-parse --verify "$1^{commit}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone -q --shared "$root" "$work/source"
git -C "$work/source" checkout -q --detach "$commit"
(cd "$work/source" && go build -o "$work/warifu" ./cmd/warifu)
cd "$root" && go test -count=1 -run TestDataOfAnEarlierReleaseIsMade ./cmd/warifu -earlier "$work/warifu"
echo "$commit" > "$here/commit"
ls -l "$here"

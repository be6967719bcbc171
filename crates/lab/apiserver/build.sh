#!/usr/bin/env bash
# Builds the API server of this directory, and gives it the etcd that it needs.
#   build.sh [DIR]   puts the programs api-machinery and etcd into DIR (default ~/.cache/routelet/api-machinery) and
#                    prints DIR; does nothing where they are there already, from these sources.
# The Go compiler, Kubernetes' packages and etcd are those of Debian's development branch, sid, which has each in one
# version only. They are unpacked in a directory of their own and not installed: this takes apt, dpkg, a Debian mirror
# with sid, 3.5 GB of disk while it builds and no rights. What was built keeps working when sid moves on.
set -euo pipefail
written_for=0.36

dir=${1:-$HOME/.cache/routelet/api-machinery}
sources=$(cd "$(dirname "$0")" && pwd)
key=$(cat "$sources"/*.go "$sources"/build.sh | sha256sum | cut -c1-16)
if [ -e "$dir/built-from" ] && [ "$(cut -d' ' -f1 "$dir/built-from")" = "$key" ]; then
  echo "$dir"
  exit
fi
fail() { echo "build.sh: $*" >&2; exit 1; }

mkdir -p "$dir"
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial cache/archives/partial root debs

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)
mirror=${mirror:-http://deb.debian.org/debian}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >sources.list
# apt with lists of its own, for which nothing is installed
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
  -o "Dir::Cache=$work/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User= -o Acquire::Languages=none)
apt-get -qq "${options[@]}" update >&2 || fail "apt cannot read the lists of sid at $mirror"
package=golang-k8s-apiserver-dev
version=$(apt-cache "${options[@]}" show $package 2>/dev/null | sed -n 's/^Version: //p' | head -1) || true
[ -n "$version" ] || fail "sid at $mirror has no $package any more: set ROUTELET_API_MACHINERY to a directory built earlier"
case $version in "$written_for".*) ;; *)
  echo "build.sh: sid has $package $version, these sources are written for $written_for: they may have to follow it" >&2 ;;
esac

apt-get -qq "${options[@]}" install --no-install-recommends --print-uris -y $package golang-go etcd-server >needed ||
  fail "sid's $package $version, golang-go and etcd-server cannot be had together at this moment"
# the dependencies' own dependencies, such as libc and systemd, are of no use to a Go compiler
names=$(sed -n "s/^'.*' \([^_]*\)_.*/\1/p" needed | grep -E '^(golang-|etcd-server$)')
(cd debs && apt-get -qq "${options[@]}" download $names >&2) || fail "the packages of sid cannot be downloaded from $mirror"
for deb in debs/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar x -C root --exclude='*_test.go' --exclude=testdata --exclude='./usr/share/doc'
  rm "$deb"
done

# without modules: each package stands below its import path
env -i PATH="$PATH" HOME="$work" GOROOT="$work/root/usr/lib/go" GOPATH="$work/root/usr/share/gocode" GOCACHE="$work/go" \
  GO111MODULE=off GOTOOLCHAIN=local CGO_ENABLED=0 \
  sh -c 'cd "$1" && "$GOROOT/bin/go" build -trimpath -ldflags=-s -o "$2/api-machinery" .' sh "$sources" "$work" >&2 ||
  fail "these sources do not fit $package $version of sid: mend crates/lab/apiserver, or set ROUTELET_API_MACHINERY to a directory built earlier"

rm -f "$dir/built-from"
# renamed into place: a server that runs keeps its own
for program in root/usr/bin/etcd api-machinery; do
  install "$program" "$dir/new"
  mv "$dir/new" "$dir/$(basename "$program")"
done
echo "$key $version" >"$dir/built-from"
echo "$dir"

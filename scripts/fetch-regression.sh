#!/bin/sh
# Fetches PostgreSQL's regression SQL into FOLDER: the source of the installed server's major version, by the machine's own package sources.
#
#   scripts/fetch-regression.sh FOLDER
#
# The SQL is PostgreSQL's (src/test/regress of its source package, under its own licence) and is not part of this repository. With it goes
# the library of C functions that many of its files load, built with the packaged headers. Does nothing if FOLDER is complete.
set -eu

say() { printf '%s\n' "fetch-regression: $*"; }
fail() { printf '%s\n' "fetch-regression: $*" >&2; exit 1; }

[ $# = 1 ] || fail "usage: scripts/fetch-regression.sh FOLDER"
folder=$1
[ ! -e "$folder/version" ] || exit 0
command -v apt-get >/dev/null || fail "apt-get is not here; unpack src/test/regress of PostgreSQL's source into $folder yourself"

newest=
for initdb in /usr/lib/postgresql/*/bin/initdb; do
    major=${initdb#/usr/lib/postgresql/} major=${major%%/*}
    [ -z "$newest" ] || [ "$major" -gt "$newest" ] && newest=$major
done
[ -n "$newest" ] || fail "no PostgreSQL server is installed"
package=postgresql-$newest

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/sources"
# The same places as for binary packages, with their sources.
for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources; do
    [ ! -e "$list" ] || sed 's/^Types:.*/Types: deb-src/' "$list" >"$work/sources/$(basename "$list")"
done
if [ -e /etc/apt/sources.list ]; then
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/sources/main.list"
fi
apt() {
    command=$1
    shift
    "$command" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" -o Dir::State::lists="$work/lists" "$@"
}
say "looking for the source of $package"
apt apt-get update -qq
# The newest version first; one that is no longer there is passed over.
versions=$(apt apt-cache showsrc "$package" 2>/dev/null | sed -n 's/^Version: //p' | sort -rV)
fetched=
for version in $versions; do
    if (cd "$work" && apt apt-get source -qq --download-only "$package=$version" >/dev/null 2>&1); then
        fetched=$version
        break
    fi
done
[ -n "$fetched" ] || fail "no source of $package could be fetched"
mkdir -p "$work/source"
tar -xf "$work"/postgresql-*.orig.tar.* -C "$work/source" --strip-components=1 --wildcards '*/src/test/regress/*'
regress=$work/source/src/test/regress

say "building the library of C functions"
(cd "$work" && apt-get download -qq "postgresql-server-dev-$newest" >/dev/null 2>&1) || fail "no headers of $package"
dpkg -x "$work"/postgresql-server-dev-*.deb "$work/headers"
cc -O1 -fPIC -shared -w -I"$work/headers/usr/include/postgresql/$newest/server" -o "$regress/regress.so" "$regress/regress.c" \
    || fail "the library of C functions could not be built"

rm -rf "$folder"
mkdir -p "$folder"
cp -R "$regress/sql" "$regress/data" "$regress/expected" "$regress/parallel_schedule" "$regress/regress.so" "$folder"
printf '%s\n' "$fetched" >"$folder/version"
say "$fetched is in $folder"

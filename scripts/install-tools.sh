#!/bin/sh
# Installs what building, the tests, the demo and the benches need, on Debian and its relatives.
#
#   scripts/install-tools.sh            everything but --drivers
#   scripts/install-tools.sh --build    only what compiling needs
#   scripts/install-tools.sh --test --demo --bench    what these need; flags add up, and each includes --build
#   scripts/install-tools.sh --drivers  the stock clients of the drivers matrix, in versions of their own, in a cache folder
#   scripts/install-tools.sh --print-python   only prints the interpreter that has psycopg 3
#
# Safe to repeat: it looks first, and when nothing is missing it installs nothing and is done in a moment.
# Packages come from wherever the machine's package manager is set up to get them.
set -eu

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0" | sed '/^set -eu/d'
}

say() {
    printf '%s\n' "install-tools: $*"
}

fail() {
    printf '%s\n' "install-tools: $*" >&2
    exit 1
}

# --- what is there ---------------------------------------------------------------------------------------------------

has() {
    command -v "$1" >/dev/null 2>&1
}

has_package() {
    status=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) && [ "$status" = installed ]
}

has_server() {
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$initdb" ] && return 0
    done
    has initdb
}

has_contrib() {
    for folder in /usr/share/postgresql/*/extension $(pg_config --sharedir 2>/dev/null)/extension; do
        [ -e "$folder/pgcrypto.control" ] && return 0
    done
    return 1
}

has_libclang() {
    has_package libclang-dev && return 0
    for library in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang*.so* /usr/lib/libclang.so*; do
        [ -e "$library" ] && return 0
    done
    return 1
}

# The interpreter that has psycopg 3: the first one on the path, the system's (which has the packaged module even
# where another stands before it), or the one of the virtual environment made below.
python_with_psycopg() {
    for python in python3 /usr/bin/python3 "$venv/bin/python3"; do
        if has "$python" && "$python" -c 'import psycopg' 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}

# --- what is wanted --------------------------------------------------------------------------------------------------

missing=

# need WHAT PACKAGE CHECK...: reports, and remembers the package when the check fails.
need() {
    what=$1 package=$2
    shift 2
    if "$@"; then
        say "$what: present"
    else
        say "$what: missing"
        missing="$missing $package"
    fi
}

need_build() {
    need "C compiler" gcc has cc
    need "C library headers" libc6-dev test -e /usr/include/stdio.h
    need "C++ compiler" g++ has c++
    need "make" make has make
    need "cmake" cmake has cmake
    need "libclang" libclang-dev has_libclang
}

need_server() {
    need "PostgreSQL server" postgresql has_server
    need "PostgreSQL client" postgresql-client has psql
    need "PostgreSQL extensions" postgresql-contrib has_contrib
}

# sshd stands where ordinary users' paths do not lead.
has_sshd() {
    has sshd || [ -x /usr/sbin/sshd ]
}

# The system's interpreter, which has the packaged modules even where another stands before it on the path.
has_python_module() {
    /usr/bin/python3 -c "import $1" 2>/dev/null
}

need_openssh() {
    need "OpenSSH server" openssh-server has_sshd
    need "OpenSSH client" openssh-client has ssh
}

# Other clients and what works over SSH.
need_ssh_clients() {
    need "rsync" rsync has rsync
    need "git" git has git
    need "paramiko" python3-paramiko has_python_module paramiko
    need "asyncssh" python3-asyncssh has_python_module asyncssh
    need "Ansible" ansible-core has ansible-playbook
}

need_python() {
    need "python3" python3 has python3
    if python_with_psycopg >/dev/null; then
        say "psycopg 3: present"
    else
        say "psycopg 3: missing"
        want_psycopg=yes
    fi
}

# --- installing ------------------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

updated=

# install_packages PACKAGE...: installs, after one refresh of the package lists.
install_packages() {
    has apt-get || fail "apt-get is not here, install with your own package manager:$*"
    if [ "$(id -u)" != 0 ] && ! { has sudo && sudo -n true 2>/dev/null; }; then
        fail "neither root nor able to use sudo, run: sudo apt-get update && sudo apt-get install --yes --no-install-recommends $*"
    fi
    if [ -z "$updated" ]; then
        say "refreshing the package lists"
        as_root apt-get update -qq || fail "apt-get update failed, see above"
        updated=yes
    fi
    say "installing $*"
    as_root apt-get install --yes -qq --no-install-recommends "$@" >/dev/null || fail "could not install $*, see above"
}

has_candidate() {
    apt-cache show "$1" >/dev/null 2>&1
}

# The distribution's package where it has one; else a virtual environment of our own, which needs no root.
install_psycopg() {
    if { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; } && has apt-get; then
        if ! has_candidate python3-psycopg && [ -z "$updated" ]; then
            say "refreshing the package lists"
            as_root apt-get update -qq || fail "apt-get update failed, see above"
            updated=yes
        fi
        if has_candidate python3-psycopg; then
            install_packages python3-psycopg
            python_with_psycopg >/dev/null && return 0
        fi
        python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    fi
    python3 -c 'import ensurepip' 2>/dev/null || fail "psycopg 3 is missing, run: sudo apt-get install --yes python3-psycopg"
    say "making a virtual environment with psycopg 3 in $venv"
    python3 -m venv "$venv" || fail "could not make the virtual environment $venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check 'psycopg[binary]>=3.1,<4' \
        || fail "pip could not install psycopg, see above"
    python_with_psycopg >/dev/null || fail "psycopg 3 was installed and still cannot be imported"
}

# --- the drivers matrix ----------------------------------------------------------------------------------------------

has_module_compiler() {
    has java && java --list-modules 2>/dev/null | grep -q '^jdk.compiler'
}

need_drivers() {
    need "Java with its compiler" default-jdk-headless has_module_compiler
    need "JDBC driver" libpostgresql-jdbc-java test -e /usr/share/java/postgresql.jar
    need "libpq headers" libpq-dev test -e /usr/include/postgresql/libpq-fe.h
    need "node" nodejs has node
    need "npm" npm has npm
    need "openssl" openssl has openssl
    need "Python virtual environments" python3-venv python3 -c 'import ensurepip'
}

# Folders outside the tree; made anew when the list of packages changes.
install_drivers() {
    drivers_folder=$(dirname "$0")/../drivers
    cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/agent-gateway-drivers
    mkdir -p "$cache/node"
    if ! cmp -s "$drivers_folder"/requirements.txt "$cache/venv/installed"; then
        say "installing the Python drivers in $cache/venv"
        python3 -m venv --clear "$cache/venv" || fail "could not make the virtual environment $cache/venv"
        "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$drivers_folder"/requirements.txt \
            || fail "pip could not install the drivers, see above"
        cp "$drivers_folder"/requirements.txt "$cache/venv/installed"
    fi
    if ! cmp -s "$drivers_folder"/node/package.json "$cache/node/installed"; then
        say "installing the Node drivers in $cache/node"
        cp "$drivers_folder"/node/package.json "$cache/node/package.json"
        (cd "$cache/node" && npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts) \
            || fail "npm could not install the drivers, see above"
        cp "$drivers_folder"/node/package.json "$cache/node/installed"
    fi
}

# --- the run ---------------------------------------------------------------------------------------------------------

venv=${TOOLS_VENV:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/gateway-tools-venv}
test='' demo='' bench='' drivers='' want_psycopg=''
# The drivers matrix fetches many packages: only when it is asked for.
[ $# -gt 0 ] || { test=yes demo=yes bench=yes; }
for flag in "$@"; do
    case $flag in
        --build) ;;
        --test) test=yes ;;
        --demo) demo=yes ;;
        --bench) bench=yes ;;
        --drivers) drivers=yes ;;
        --print-python)
            python_with_psycopg || fail "no python3 here has psycopg 3, run scripts/install-tools.sh --demo"
            exit 0
            ;;
        --help | -h) usage; exit 0 ;;
        *) usage >&2; fail "unknown flag \`$flag\`" ;;
    esac
done

need_build
[ -z "$test$demo$bench$drivers" ] || need_server
[ -z "$test$demo" ] || need_python
[ -z "$test$demo" ] || need_openssh
[ -z "$test" ] || need_ssh_clients
[ -z "$test$demo" ] || need "curl" curl has curl
[ -z "$bench" ] || need "pgbouncer" pgbouncer has pgbouncer
[ -z "$drivers" ] || need_drivers

# A name a line, no name twice, split on purpose.
# shellcheck disable=SC2086
[ -z "$missing" ] || install_packages $missing
[ -z "$want_psycopg" ] || install_psycopg
[ -z "$drivers" ] || install_drivers
say "done"

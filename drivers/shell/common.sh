# What the shell scenarios share. Sourced by bash.
set -uo pipefail

# One line of the outcome: control characters escaped, long ones as their digest.
tell() { # FEATURE WORD
    local text
    text=$(cat | sed -z 's/\n$//; s/\\/\\\\/g; s/\t/\\t/g; s/\n/\\n/g' | tr -d '\0\r')
    if [ ${#text} -gt 400 ]; then text="${#text} characters, $(printf '%s' "$text" | sha256sum | cut -c1-16)"; fi
    printf '%s\t%s %s\n' "$1" "$2" "$text"
}

# Runs a command; its output and errors are the outcome.
feature() { # FEATURE COMMAND...
    local name=$1 out
    shift
    local limit=(timeout 60)
    # A function of the scenario; the runner's own limit holds.
    if declare -F "$1" >/dev/null; then limit=(); fi
    if out=$("${limit[@]}" "$@" 2>&1); then tell "$name" ok <<<"$out"; else tell "$name" "error" <<<"$out"; fi
}

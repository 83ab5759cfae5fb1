#!/usr/bin/env bash
# Every command line of the product's first page, in its order and as written, against the
# local engine, with a check of what each one did. Prints each command it runs and ends with
# "N passed, M failed".
#
# Written differently from the page, because only a real account has them:
#   sb-01k... sb-01k...                 ids of two sandboxes made here
#   https://s3.amazonaws.com, AKIA..., ...  a real S3 server on this machine and its keys
#   my-bucket (as a disk)               a disk of that name, registered here first
# "createos login" signs in to the local engine with its key, as CREATEOS_SANDBOX_URL says.
# Questions are answered on a pseudo-terminal, as a person would.
#
# Needs, besides createos: bash, curl, git's and OpenSSH's clients, jq, npm, pip, python3 with
# venv, util-linux (script), and openssh-server for what runs inside. It uses a home directory
# of its own and leaves nothing behind.
set -uo pipefail
exec </dev/null
root=$(cd "$(dirname "$0")/.." && pwd)

if ! command -v createos >/dev/null; then
    (cd "$root" && cargo build -q -p createos-cli) || exit 1
    PATH=$root/target/debug:$PATH
fi
real_home=$HOME
work=$(mktemp -d)
out=$work/out err=$work/err log=$work/terminal
passed=0 failed=0 code=0
server_pid='' background=''

# shellcheck disable=SC2317  # called by the trap
finish() {
    [[ -n $background ]] && kill -9 "$background" 2>/dev/null
    createos local stop >/dev/null 2>&1
    [[ -n $server_pid ]] && kill "$server_pid" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    printf '  FAILED: %s (exit code %s)\n' "$*" "$code"
    sed 's/^/  | /' "$out" "$err" 2>/dev/null | tail -n 25
}

# Something that a check says must hold.
check() {
    local what=$1
    shift
    if "$@" >>"$err" 2>&1; then pass; else fail "$what"; fi
}
has() { grep -qF -- "$1" "$out"; }
json() { createos -o json "$@"; }
says() { # what it should be, and the command that says it
    local wanted=$1
    shift
    [[ $("$@" 2>&1) == "$wanted" ]] || { printf 'said: %s\n' "$("$@" 2>&1)"; return 1; }
}
state() { json sandbox get "$1" | jq -r .status; }
eventually() { # at most 20 seconds
    local n
    for ((n = 0; n < 200; n++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    "$@"
}

# Runs a line as it stands; it must succeed.
seed() {
    printf '$ %s\n' "$1"
    bash -c "$1" >"$out" 2>"$err" </dev/null
    code=$?
    if ((code == 0)); then pass; else fail "$1"; fi
}

# Runs a line on a terminal; then pairs of what appears there and what is typed.
on_terminal() {
    local line=$1 keys=$work/keys from=0
    printf '$ %s        (on a terminal)\n' "$line"
    rm -f "$keys"
    mkfifo "$keys"
    : >"$log"
    exec 8<>"$keys"
    TERM=xterm script -qefc "stty rows 40 cols 100; $line" "$log" <"$keys" >/dev/null 2>"$err" &
    local child=$!
    shift
    # The first line is of script itself, and holds the command.
    eventually grep -q . "$log"
    from=$(head -n 1 "$log" | wc -c)
    while (($#)); do
        eventually appears "$from" "$1" "$child"
        from=$(stat -c %s "$log")
        printf '%b' "$2" >&8
        shift 2
    done
    local n
    for ((n = 0; n < 600; n++)); do
        kill -0 $child 2>/dev/null || break
        sleep 0.1
    done
    kill -9 $child 2>/dev/null
    wait $child 2>/dev/null
    code=$?
    exec 8>&-
    sed -e '1d' -e 's/\r$//' -e '/^Script done on /d' "$log" >"$out"
    if ((code == 0)); then pass; else fail "$line"; fi
}
appears() { # also ends when the command has
    tail -c "+$(($1 + 1))" "$log" | tr -d '\r' | sed 's/\x1b\[[0-9;?]*[A-Za-z]//g' | grep -qF -- "$2" ||
        ! kill -0 "$3" 2>/dev/null
}

# An object of the bucket, read past the wall of the S3 server.
object() {
    env -u AWS_CA_BUNDLE AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=us-east-1 \
        "$python" -c 'import boto3, sys
client = boto3.client("s3", endpoint_url=sys.argv[1])
print(client.get_object(Bucket="my-bucket", Key=sys.argv[2])["Body"].read().decode(), end="")' \
        "http://127.0.0.1:$(cut -d' ' -f2 "$work/s3.out")" "$1"
}

# Starts a line that runs until Ctrl+C.
begin() {
    printf '$ %s        (until Ctrl+C)\n' "$1"
    # A shell ignores Ctrl+C in what it starts in the background; env gives it back.
    env --default-signal=INT bash -c "exec $1" >"$out" 2>"$err" </dev/null &
    background=$!
}
interrupt() {
    kill -INT "$background"
    wait "$background"
    code=$?
    background=''
    if ((code == 0)); then pass; else fail "Ctrl+C ends it well"; fi
}

# ---------------------------------------------------------------------------------------------
# What a user has before the first line: a home, a key, files, and the engine.

export HOME=$work/home
unset CREATEOS_API_KEY CREATEOS_SANDBOX_URL CREATEOS_SANDBOX_BASE_URL CREATEOS_OUTPUT
mkdir -p "$HOME/.ssh" "$HOME/work/project" "$work/here/mydir"
cd "$work/here" || exit 1
ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/id_ed25519"
echo 'print("pushed")' >main.py
echo bundled >mydir/file
echo synced >"$HOME/work/project/notes.txt"
printf 'FROM nodeops/sandbox:debian\nRUN echo built > /root/built\n' >Dockerfile

# The real package; a sandbox has no way to this machine's package index.
HOME=$real_home python3 -m pip -q download -d wheels requests >"$err" 2>&1 || {
    cat "$err"
    exit 1
}
python=$(HOME=$real_home "$root/.ci/s3") || exit 1
mkfifo "$work/s3.in"
"$python" "$root/tests/s3/server.py" my-bucket <"$work/s3.in" >"$work/s3.out" 2>/dev/null &
server_pid=$!
exec 7>"$work/s3.in"
eventually test -s "$work/s3.out" || exit 1
endpoint=http://127.0.0.1:$(cut -d' ' -f1 "$work/s3.out")

createos -o json local start >"$out" || exit 1
engine=$(jq -r .url "$out")
key=$(jq -r .api_key "$HOME/.config/createos/local.json")
export CREATEOS_SANDBOX_URL=$engine

# --- Quick start -----------------------------------------------------------------------------

on_terminal 'createos login' 'API key' "$key\r"
check 'the key is stored' says "$key" cat "$HOME/.createos/.token"
check 'it signs in' eval 'createos whoami >/dev/null'
seed 'createos sandbox shapes'
check 'the size is there' has s-1vcpu-256mb
seed 'createos sandbox create --shape s-1vcpu-256mb --name my-box'
check 'it runs' says running state my-box
seed 'createos sandbox exec my-box -- uname -a'
check 'it ran inside' has 'Linux my-box'
on_terminal 'createos sandbox shell my-box' '#' 'echo $((6*7)) from $(hostname)\r' \
    '42 from my-box' 'exit\r'
seed 'createos sandbox rm my-box --force'
check 'it is gone' says '[]' json sandbox list
# Size, name, image, public address, SSH keys, auto-pause, and whether to create it.
on_terminal 'createos sandbox create' 'size' '\r' 'name' 'wizard\r' 'image' '\r' 'public' 'n\r' \
    'SSH' '\r' 'auto-pause' '\r' 'create it' 'y\r'
check 'the wizard made it' says running state wizard
createos sandbox rm wizard --force >/dev/null 2>&1

# --- Create ----------------------------------------------------------------------------------

seed 'createos sandbox create --shape s-1vcpu-1gb --name my-box'
check 'it has the size' says 1024 eval 'json sandbox get my-box | jq .mem_mib'
seed 'createos sandbox create --shape s-1vcpu-256mb'
check 'it has a name of its own' eval '[[ $(jq -r .id "$out") == sb-* ]]'
createos sandbox rm "$(jq -r .id "$out")" --force >/dev/null 2>&1
seed 'createos sandbox create --shape s-1vcpu-1gb \
  --name demo --ssh-key ~/.ssh/id_ed25519.pub --ingress'
check 'the key is admitted' says "$(cut -d' ' -f1,2 "$HOME/.ssh/id_ed25519.pub")" \
    eval 'createos sandbox exec demo -- cut -d" " -f1,2 /root/.ssh/authorized_keys'
createos sandbox exec demo -- sh -c \
    'cd /tmp && echo hello >index.html && (python3 -m http.server 8000 >/dev/null 2>&1 &)'
url=$(json sandbox get demo | jq -r .ingress_url_template)
check 'the public address leads there' eventually says hello curl -sf "${url/<port>/8000}"
# The page has the disk and the network by now.
json sandbox disk create my-bucket --bucket my-bucket --endpoint "$endpoint" \
    --access-key AKTEST --secret-key hunter2+/secret >"$out" 2>"$err"
json sandbox network create my-net >"$out" 2>"$err"
seed 'createos sandbox create --shape s-1vcpu-1gb \
  --disk my-bucket:/mnt/data --network my-net'
both=$(jq -r .id "$out")
mounted() { [[ $(json sandbox get "$both" | jq -r '.disks[0].mount_status') == mounted ]]; }
check 'the disk is mounted' eventually mounted
check 'it is on the network' says "$both" \
    eval 'json sandbox network show my-net | jq -r ".members[].sandbox_id"'
createos sandbox rm "$both" --force >/dev/null 2>&1
createos sandbox disk rm my-bucket --force >/dev/null 2>&1
createos sandbox network rm my-net --force >/dev/null 2>&1
# The flags of the page's table that no example has.
seed 'createos sandbox create --shape s-1vcpu-256mb --name flags --rootfs devbox:1 --disk-mib 6144 --env STAGE=ci --egress api.example.com --auto-pause 10m'
check 'each of them counts' says 'devbox:1 6144 ["STAGE"] ["api.example.com"] 600' eval \
    'json sandbox get flags | jq -r "[.rootfs, .disk_mib, (.envs|tojson), (.egress|tojson), .auto_pause_after_seconds]|join(\" \")"'
check 'the variable is there' says ci createos sandbox exec flags -- printenv STAGE
createos sandbox rm flags --force >/dev/null 2>&1

# --- List, details, settings -------------------------------------------------------------------

seed 'createos sandbox list'
check 'both are in it' says '["demo","my-box"]' jq -c '[.[].name]|sort' "$out"
seed 'createos sandbox list --all'
check 'ended ones too' eval '(( $(jq length "$out") > 2 ))'
createos sandbox pause demo >/dev/null 2>&1
seed 'createos sandbox list --status paused'
check 'only the paused one' says '["demo"]' jq -c '[.[].name]' "$out"
createos sandbox resume demo >/dev/null 2>&1
seed 'createos sandbox list --quiet # IDs only — useful for scripting'
check 'ids only' eval '[[ $(wc -l <"$out") == 2 ]] && ! grep -qv "^sb-[0-9a-z]*$" "$out"'
seed 'createos sandbox get my-box'
check 'it says the state' says running jq -r .status "$out"
seed 'createos sandbox edit my-box --ingress on'
check 'it has an address' eval 'json sandbox get my-box | jq -e .ingress_enabled'
seed 'createos sandbox edit my-box --add-ssh-key ~/.ssh/id_ed25519.pub'
check 'the key is admitted' eval \
    'createos sandbox exec my-box -- grep -q ssh-ed25519 /root/.ssh/authorized_keys'
seed 'createos sandbox edit my-box --auto-pause 30m'
check 'it will pause' says 1800 eval 'json sandbox get my-box | jq .auto_pause_after_seconds'
seed 'createos sandbox edit my-box --auto-pause off'
check 'it will not' says null eval 'json sandbox get my-box | jq .auto_pause_after_seconds'
# The first entry turns the public address off; then the last one ends the menu.
on_terminal 'createos sandbox edit my-box' 'public' '\r' '?' 'y\r' 'done' '\x1b[A\r'
check 'the menu turned it off' says false eval 'json sandbox get my-box | jq .ingress_enabled'

# --- Pause, resume, fork, delete ---------------------------------------------------------------

createos sandbox exec my-box -- sh -c 'echo kept >/root/file' >/dev/null
seed 'createos sandbox pause my-box'
check 'it is paused' says paused state my-box
seed 'createos sandbox resume my-box'
check 'its files are there' says kept createos sandbox exec my-box -- cat /root/file
createos sandbox pause my-box >/dev/null 2>&1
seed 'createos sandbox fork my-box'
fork=$(jq -r .id "$out")
check 'the clone runs with the files' says kept createos sandbox exec "$fork" -- cat /root/file
seed 'createos sandbox fork my-box --paused'
paused_fork=$(jq -r .id "$out")
check 'the clone is paused' says paused state "$paused_fork"
on_terminal 'createos sandbox rm my-box' 'for good?' 'y\r'
check 'it is gone' eval '! json sandbox list | jq -e ".[]|select(.name==\"my-box\")"'
seed "createos sandbox rm $fork $paused_fork --force"
check 'both are gone' says '["demo"]' eval 'json sandbox list | jq -c "[.[].name]"'
createos sandbox rm demo --force >/dev/null 2>&1

# --- Run commands --------------------------------------------------------------------------------

# pip finds the package that it would get from its index; Debian's wants to be told twice.
createos sandbox create --shape s-1vcpu-1gb --name my-box --env STAGE=ci --env PIP_NO_INDEX=1 \
    --env PIP_FIND_LINKS=/wheels --env PIP_BREAK_SYSTEM_PACKAGES=1 >/dev/null 2>&1
tar -c wheels | createos sandbox push my-box - /tmp/wheels.tar >/dev/null 2>&1
createos sandbox exec my-box -- tar -C / -xf /tmp/wheels.tar
seed 'createos sandbox exec my-box -- uname -a'
check 'it ran inside' has 'Linux my-box'
seed "createos sandbox exec my-box -- python3 -c 'print(\"hi\")'"
check 'the output is exact' says hi cat "$out"
seed 'createos sandbox exec my-box --stream -- pip install requests'
check 'it is installed' createos sandbox exec my-box -- python3 -c 'import requests'
seed 'createos sandbox exec my-box --env STAGE=now -- printenv STAGE'
check 'the variable is overridden' says now cat "$out"
createos sandbox exec my-box -- sh -c 'exit 7'
code=$?
check 'the exit code is preserved' test $code = 7

on_terminal 'createos sandbox shell my-box' '#' 'echo $((6*7)) from $(hostname)\r' \
    '42 from my-box' 'exit\r'
on_terminal 'createos sandbox shell my-box --ssh' 'install' 'y\r' '#' \
    'echo ${SSH_CONNECTION:+by} ssh\r' 'by ssh' 'exit\r'
on_terminal 'createos sandbox shell my-box -i ~/.ssh/id_ed25519' '#' \
    'echo ${SSH_CONNECTION:+by} ssh\r' 'by ssh' 'exit\r'

# --- Files -----------------------------------------------------------------------------------------

seed 'createos sandbox push my-box ./main.py /workspace/main.py'
check 'it is there' says pushed createos sandbox exec my-box -- python3 /workspace/main.py
seed 'tar -c mydir | createos sandbox push my-box - /tmp/bundle.tar'
check 'it is whole' says bundled createos sandbox exec my-box -- tar -xOf /tmp/bundle.tar mydir/file
createos sandbox exec my-box -- sh -c 'seq 100 >/workspace/result.csv'
seed 'createos sandbox pull my-box /workspace/result.csv ./result.csv'
check 'it came whole' says "$(seq 100)" cat result.csv
seed 'createos sandbox pull my-box /workspace/result.csv - | head -5'
check 'its beginning came' says "$(seq 5)" cat "$out"

begin 'createos sandbox sync my-box --local ~/work/project --remote /root/work'
check 'it goes there' eventually says synced createos sandbox exec my-box -- cat /root/work/notes.txt
createos sandbox exec my-box -- sh -c 'echo back >/root/work/answer.txt'
check 'and comes back' eventually says back cat "$HOME/work/project/answer.txt"
interrupt

# --- Networking ------------------------------------------------------------------------------------

createos sandbox exec my-box -- sh -c 'cd /workspace && echo served >index.html
    for port in 8000 5432 80; do (python3 -m http.server $port >/dev/null 2>&1 &); done'
begin 'createos sandbox tunnel my-box --local 8080 --remote 8000'
check 'it leads there' eventually says served curl -sf http://127.0.0.1:8080/
interrupt
begin 'createos sandbox tunnel my-box --remote 5432'
check 'the same port here' eventually says served curl -sf http://127.0.0.1:5432/
interrupt
begin 'createos sandbox tunnel my-box --remote 80 --bind 0.0.0.0'
check 'from other addresses too' eventually says served curl -sf http://127.0.0.2/
interrupt

seed 'createos sandbox network create my-net'
seed 'createos sandbox network ls'
check 'it is there' says my-net jq -r '.[].name' "$out"
createos sandbox create --shape s-1vcpu-256mb --name other --network my-net >/dev/null 2>&1
seed 'createos sandbox network attach my-box my-net'
reached() { createos sandbox exec other -- curl -sf -m 5 http://my-box.fc.local:8000/; }
check 'a sandbox reaches it by name' eventually says served reached
on_terminal 'createos sandbox network detach my-box my-net' '?' 'y\r'
check 'and no more' eval '! reached'
on_terminal 'createos sandbox network rm my-net' '?' 'y\r'
check 'it is gone' says '[]' json sandbox network ls
createos sandbox rm other --force >/dev/null 2>&1

seed 'createos sandbox firewall show my-box'
check 'there are no rules' says '[]' jq -c .rules "$out"
seed 'createos sandbox firewall set my-box api.example.com github.com'
check 'they are stored' says '["api.example.com","github.com"]' eval \
    'json sandbox firewall show my-box | jq -c .rules'
seed 'createos sandbox firewall clear my-box'
check 'they are gone' says '[]' eval 'json sandbox firewall show my-box | jq -c .rules'

seed "createos sandbox disk create my-disk \\
  --bucket my-bucket \\
  --endpoint $endpoint \\
  --access-key AKTEST \\
  --secret-key hunter2+/secret"
seed 'createos sandbox disk ls'
check 'it is there' says my-disk jq -r '.[].name' "$out"
seed 'createos sandbox disk attach my-box my-disk:/mnt/data'
check 'it holds files' eval \
    'createos sandbox exec my-box -- sh -c "echo stored >/mnt/data/file && cat /mnt/data/file" | grep -q stored'
check 'they are objects' says stored object file
on_terminal 'createos sandbox disk detach my-box my-disk' '?' 'y\r'
check 'it is not mounted' says '[]' eval 'json sandbox get my-box | jq -c ".disks // []"'
on_terminal 'createos sandbox disk rm my-disk' '?' 'y\r'
check 'it is gone' says '[]' json sandbox disk ls

# --- Custom images, catalog --------------------------------------------------------------------------

seed 'createos sandbox template submit my-rails -f Dockerfile'
check 'it is built' says ready jq -r .status "$out"
seed 'createos sandbox template ls'
check 'it is there' says my-rails jq -r '.[].name' "$out"
seed 'createos sandbox template show my-rails'
check 'it says the state' says ready jq -r .status "$out"
seed 'createos sandbox template logs my-rails'
check 'it shows the build' has built
createos sandbox create --shape s-1vcpu-256mb --name rails --rootfs my-rails >/dev/null 2>&1
check 'a sandbox has its files' says built createos sandbox exec rails -- cat /root/built
createos sandbox rm rails --force >/dev/null 2>&1
on_terminal 'createos sandbox template rm my-rails' '?' 'y\r'
check 'it is gone' says '[]' json sandbox template ls
seed 'createos sandbox shapes # Available sizes (vCPU / RAM / disk)'
check 'it lists sizes' has s-1vcpu-1gb
seed 'createos sandbox rootfs # Built-in OS images'
check 'it lists images' has devbox:1

# --- Scripts and CI ------------------------------------------------------------------------------------

seed 'createos sandbox create --shape s-1vcpu-256mb --name ci-box'
echo '{"scripts":{"test":"echo tested"}}' >package.json
createos sandbox push ci-box package.json /root/package.json >/dev/null 2>&1
seed 'createos sandbox exec ci-box -- npm test'
check 'the output is captured' has tested
seed "createos sandbox list --output json | jq '.[].id'"
check 'two ids' says 2 eval 'grep -c "^\"sb-" "$out"'
seed 'createos sandbox rm ci-box --force'
check 'it is gone' says '["my-box"]' eval 'json sandbox list | jq -c "[.[].name]"'

# --- Global flags ----------------------------------------------------------------------------------------

seed "createos --sandbox-api-url $engine sandbox list --output json"
check 'the flag names the plane' says my-box jq -r '.[].name' "$out"
seed 'createos sandbox --sandbox-gateway 127.0.0.1:2222 list'
check 'the gateway can be named' says my-box jq -r '.[].name' "$out"
createos sandbox rm my-box --force >/dev/null 2>&1

printf '%s passed, %s failed\n' "$passed" "$failed"
((failed == 0))

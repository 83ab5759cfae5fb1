#!/bin/bash
# The desktop inside a sandbox: for each screen an X server that is its VNC server as well, a
# window manager, and a web page to look at it.
#
#   boot             starts what should be there: at first screen 0, later what was left
#   create SIZE      adds a screen and prints its number; 3 when there are as many as can be
#   delete N         ends a screen for good
#   launch PROGRAM…  starts a program and leaves it; 127 when there is none
#   open TARGET      opens an address or a file; the exit code of xdg-open when it ends at once
#   copy, paste      the clipboard, from standard input and to standard output

here=/run/createos-desktop
kept=/var/lib/createos-desktop

# One for each screen, for as long as it is wanted. It holds a lock, so that there is one.
start() {
    (
        exec 9>"$here/lock-$1"
        flock -n 9 || exit 0
        setsid bash "$here/session" run "$1" </dev/null >/dev/null 2>&1 &
    )
}

# Ends what was started for a screen, and nothing that has its number by now.
sweep() {
    while read -r pid; do
        if tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qE 'Xtigervnc|openbox|websockify'; then
            kill "$pid"
        fi
    done <"$here/started-$1" 2>/dev/null
    : >"$here/started-$1"
}

alive() {
    [ -n "$1" ] && kill -0 "$1"
}

run() {
    screen=$1
    trap 'sweep "$screen"; exit 0' TERM
    echo $$ >"$here/runs-$screen"
    export DISPLAY=":$screen" PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1
    while [ -s "$kept/screen-$screen" ]; do
        read -r size <"$kept/screen-$screen"
        sweep "$screen"
        rm -f "/tmp/.X11-unix/X$screen" "/tmp/.X$screen-lock"
        # Sharing lets several people look; those of the sandbox need no password.
        Xtigervnc ":$screen" -geometry "$size" -depth 24 -rfbport $((5900 + screen)) \
            -localhost=1 -SecurityTypes None -AlwaysShared -AcceptSetDesktopSize=0 \
            -desktop "screen-$screen" -nolisten tcp 9>&- &
        server=$! manager='' bridge=''
        echo "$server" >>"$here/started-$screen"
        while [ ! -S "/tmp/.X11-unix/X$screen" ] && alive "$server"; do
            sleep 0.02
        done
        while alive "$server"; do
            if ! alive "$manager"; then
                openbox 9>&- &
                manager=$!
                echo "$manager" >>"$here/started-$screen"
            fi
            if ! alive "$bridge"; then
                websockify --web /usr/share/novnc --token-plugin createos_tokens.Tokens \
                    --token-source "$here/token-$screen" \
                    "0.0.0.0:$((6080 + screen))" 9>&- &
                bridge=$!
                echo "$bridge" >>"$here/started-$screen"
            fi
            wait -n "$server" "$manager" "$bridge"
            # What cannot stay up is not tried without end.
            sleep 1
        done
    done
}

case $1 in
boot)
    mkdir -p "$here"
    # As root it wants to be told that its own sandbox is not needed inside this one.
    if [ -d /etc/chromium.d ]; then
        flags='--no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run'
        echo "CHROMIUM_FLAGS=\"\$CHROMIUM_FLAGS $flags\"" >/etc/chromium.d/createos-desktop
    fi
    if [ ! -d "$kept" ]; then
        mkdir -p "$kept"
        echo 1280x800 >"$kept/screen-0"
    fi
    for screen in 0 1 2 3 4 5 6 7; do
        [ ! -s "$kept/screen-$screen" ] || start "$screen"
    done
    ;;
create)
    for screen in 0 1 2 3 4 5 6 7; do
        if [ ! -e "$kept/screen-$screen" ]; then
            echo "$2" >"$kept/screen-$screen"
            start "$screen"
            echo "$screen"
            exit 0
        fi
    done
    exit 3
    ;;
delete)
    rm -f "$kept/screen-$2" "$here/token-$2"
    read -r supervisor <"$here/runs-$2" && kill "$supervisor"
    while [ -S "/tmp/.X11-unix/X$2" ]; do
        sweep "$2"
        sleep 0.05
    done
    rm -f "$here/runs-$2"
    ;;
run)
    run "$2"
    ;;
launch)
    shift
    command -v -- "$1" >/dev/null || exit 127
    cd || exit
    setsid -- "$@" </dev/null >/dev/null 2>&1 &
    ;;
open)
    setsid xdg-open "$2" </dev/null >/dev/null 2>&1 &
    program=$!
    tries=0
    while kill -0 "$program" 2>/dev/null && [ "$tries" -lt 40 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -0 "$program" 2>/dev/null || wait "$program"
    ;;
copy)
    exec xclip -selection clipboard -in >/dev/null 2>&1
    ;;
paste)
    xclip -selection clipboard -out 2>/dev/null ||
        xclip -selection clipboard -out -target STRING 2>/dev/null || :
    ;;
esac

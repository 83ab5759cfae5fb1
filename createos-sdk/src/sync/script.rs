//! The shell scripts that work in the sandbox.
//!
//! They need a POSIX shell, `find`, `stat`, `tar`, `sha256sum` and `base64`, as coreutils or
//! busybox have them. Names may be any bytes: those that are not text go in escaped, and what
//! comes out that may hold names is in base64.

use std::fmt::Write;

/// How a version of a file is told.
pub(super) const STAT: &str = "%f %s %i %y";

/// A script under construction.
#[derive(Debug, Clone)]
pub(super) struct Script {
    text: String,
    variables: usize,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { text: "LC_ALL=C; export LC_ALL\n".to_owned(), variables: 0 }
    }

    /// A script that works in the root.
    pub(super) fn in_root(root: &str) -> Self {
        let mut script = Self::new();
        let root = script.word(root.as_bytes());
        script.push(&format!("R={root}\n[ -d \"$R\" ] || exit 44\ncd -P \"$R\" || exit 45\n"));
        script
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// These bytes as one word of the shell.
    pub(super) fn word(&mut self, bytes: &[u8]) -> String {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return format!("'{}'", text.replace('\'', r"'\''"));
        }
        self.variables += 1;
        let name = format!("v{}", self.variables);
        let mut escaped = String::new();
        for &byte in bytes {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                    escaped.push(byte.into());
                }
                _ => {
                    let _ = write!(escaped, "\\0{byte:03o}");
                }
            }
        }
        // The dot keeps line breaks at the end.
        let line = format!("{name}=$(printf '%b.' '{escaped}'); {name}=${{{name}%.}}\n");
        self.text.push_str(&line);
        format!("\"${name}\"")
    }

    /// One word per path, relative to the working directory whatever it begins with.
    pub(super) fn relative(&mut self, path: &[u8]) -> String {
        let mut dotted = b"./".to_vec();
        dotted.extend_from_slice(path);
        self.word(&dotted)
    }

    /// Calls a function.
    pub(super) fn call(&mut self, name: &str, words: &[String]) {
        self.push(&format!("{name} {}\n", words.join(" ")));
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn text(self) -> String {
        self.text
    }
}

/// What `find` leaves out by itself, as the beginning of its expression.
pub(super) fn prunes(names: &[&str]) -> String {
    let mut text = String::from(r"\( -name '.createos-sync-*'");
    for name in names {
        let _ = write!(text, " -o -name '{name}'");
    }
    text.push_str(r" \) -prune -o");
    text
}

/// Makes the root and tells what it is: its path without links, its identity, and which
/// programs are missing. What a sync that was killed had moved out of the way is brought back
/// under a name that shows; its unfinished files go.
pub(super) const PREPARE: &str = r#"mkdir -p "$R" 2>/dev/null
[ -d "$R" ] || exit 44
cd -P "$R" || exit 45
for tool in find stat tar sha256sum base64 cksum mv ln mkdir rm rmdir chmod; do
  command -v "$tool" >/dev/null 2>&1 || printf 'missing %s\n' "$tool"
done
for s in .createos-sync-*; do
  [ -d "$s" ] && [ ! -L "$s" ] || continue
  read -r pid 2>/dev/null < "$s/pid" && kill -0 "$pid" 2>/dev/null && continue
  if rmdir "$s/old" 2>/dev/null || [ ! -e "$s/old" ]; then rm -rf "./$s"
  else rm -rf "./$s/new" "./$s/pid"; mv "./$s" "./createos-sync-saved-${s#.createos-sync-}"; fi
done
printf 'root %s %s\n' "$(stat -c '%d:%i' .)" "$PWD"
"#;

/// What the scripts that change something begin with. `$S` is their own directory, in the root
/// so that a rename leads into every file's place at once.
///
/// Every function answers with a line `<word> <number> …`; what is not answered was not done.
pub(super) const CHANGE: &str = r#"F='%f %s %i %y'; T=0; K=
mkdir -p "$S/new" "$S/old" && echo $$ > "$S/pid" || exit 46
# Enters a directory below the root, unless a link leads there.
at() { if [ -n "$1" ]; then d=$R/$1; else d=$R; fi; cd -P "$d" 2>/dev/null && [ "$PWD" = "$d" ]; }
there() { [ -e "$1" ] || [ -L "$1" ]; }
# Puts back what was taken. Where something new has the name, it is kept aside.
back() { there "$1" || return 0
  if there "$2"; then T=1
  elif ln "$1" "$2" 2>/dev/null; then rm -f "$1"
  else mv -n "$1" "$2" 2>/dev/null; if there "$1"; then T=1; fi; fi; }
# number, directory, versions, names: removes files
rm_() { i=$1; at "$2" || return 0; e=$3; shift 3; mkdir "$S/old/$i" || return 0
  mv -f "$@" "$S/old/$i/" 2>/dev/null
  now=$(cd "$S/old/$i" && stat -c "$F %n" "$@" 2>/dev/null)
  if [ "$now" = "$e" ]; then rm -rf "$S/old/$i"; echo "ok $i"
  else for n; do back "$S/old/$i/$n" "$n"; done; rmdir "$S/old/$i" 2>/dev/null; fi; }
# number, directory, names: removes empty directories
rd_() { i=$1; at "$2" || return 0; shift 2; rmdir "$@" 2>/dev/null
  r=; for n; do if there "$n"; then r=${r}0; else r=${r}1; fi; done; echo "each $i $r"; }
# number, directory, mode, names: makes directories
mk_() { i=$1; at "$2" || return 0; m=$3; shift 3; mkdir -m "$m" "$@"
  r=; for n; do if [ -d "$n" ] && [ ! -L "$n" ]; then r=${r}1; else r=${r}0; fi; done; echo "each $i $r"; }
# group, name, target: makes a link among the new files
sl_() { mkdir -p "$S/new/$1"; ln -s -- "$3" "$S/new/$1/$2"; }
# group, directory, names: gives new files their names, unless these are taken
pu_() { i=$1; at "$2" || return 0; d=$PWD; shift 2; cd "$S/new/$i" || return 0; r=
  if v=$(stat -c "$F" "$@" 2>/dev/null) && ln "$@" "$d/" 2>/dev/null; then
    for n; do r=${r}1; done; echo "put $i $r"; printf '%s\n' "$v"; return 0; fi
  v=
  for n; do
    if there "$n"; then
      s=$(stat -c "$F" "$n")
      same "$n" "$d/$n" || there "$d/$n" || ln "$n" "$d/" 2>/dev/null || mv -n "$n" "$d/"
      if same "$n" "$d/$n" || ! there "$n"; then r=${r}1; else r=${r}0; fi
    else s=-; r=${r}0; fi
    v="$v$s
"
  done; echo "put $i $r"; printf '%s' "$v"; }
same() { [ "$(stat -c %d:%i "$1" 2>/dev/null)" = "$(stat -c %d:%i "$2" 2>/dev/null)" ]; }
# number, directory, group, name, version: replaces a file. It is taken away first and looked
# at then, so that no change of the last moment is lost.
sw_() { i=$1; at "$2" || return 0; n=$4; new=$S/new/$3/$n; old=$S/old/$i; e=$5
  v=$(stat -c "$F" "$new") && [ "$(stat -c "$F" "$n" 2>/dev/null)" = "$e" ] || return 0
  set -- $v; ino=$3
  mv -f "$n" "$old" || return 0
  ln "$new" "$n" 2>/dev/null || mv -n "$new" "$n"
  if [ "$(stat -c %i "$n" 2>/dev/null)" = "$ino" ]; then
    if [ "$(stat -c "$F" "$old" 2>/dev/null)" = "$e" ]; then
      K="$K $i"; eval "E$i=\$e"; echo "ok $i $v"; return 0; fi
    mv -f "$n" "$old.x"
    if [ "$(stat -c %i "$old.x" 2>/dev/null)" = "$ino" ]; then rm -f "$old.x"; else T=1; fi; fi
  back "$old" "$n"; }
# number, mode, directory, names: sets permissions
ch_() { i=$1; m=$2; at "$3" || return 0; shift 3; r=
  for n; do if [ ! -L "$n" ] && chmod "$m" "$n"; then r=${r}1; else r=${r}0; fi; done
  echo "each $i $r"; }
# Removes what is no longer needed. What was written to after it was replaced, by a program
# that had it open, is kept.
end() { cd "$R" || exit 45; rm -rf "$S/new"
  for i in $K; do eval "e=\$E$i"
    if [ "$(stat -c "$F" "$S/old/$i" 2>/dev/null)" = "$e" ]; then rm -f "$S/old/$i"; else T=1; fi; done
  if [ $T = 1 ]; then rm -f "$S/pid"; mv "$S" "$R/createos-sync-saved-${S##*-}"; echo "saved 0"
  else rm -rf "$S"; fi; }
"#;

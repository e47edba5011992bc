#!/bin/sh
# Installs isrfs from a built clone into a prefix, or takes it away again.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  cat <<'TEXT'
usage: mount-scripts/install.sh [--prefix DIR] [--uninstall]

  --prefix DIR    default: /usr/local as root, ~/.local otherwise
  --uninstall     removes exactly what the installation has put there; VMs, sessions and caches stay

Installs isrfs, isrfs-resume, isrfs-suspend, isrfs-setup-host, mount.isrfs (also linked into /sbin, when the prefix is one of
the system's), the units isrfs@.service and isrfs-inhibit@.service with how long logind may wait for them, man pages, and completion for bash, zsh and fish.
TEXT
}
say() { printf 'install.sh: %s\n' "$*"; }
failed() {
  printf 'install.sh: %s\n' "$1" "  $2" >&2
  exit 1
}

prefix=$HOME/.local
[ "$(id -u)" -ne 0 ] || prefix=/usr/local
uninstall=
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage && exit 0 ;;
  --prefix) [ $# -gt 1 ] || failed '--prefix needs a directory' 'install.sh --help'; prefix=$2 && shift ;;
  --prefix=*) prefix=${1#--prefix=} ;;
  --uninstall) uninstall=yes ;;
  *) printf 'install.sh: %s is unknown\n' "$1" >&2 && usage >&2 && exit 2 ;;
  esac
  shift
done
prefix=$(realpath -ms -- "$prefix")
library=$prefix/lib/isrfs
list=$library/installed

remove_installed() {
  while IFS= read -r file; do rm -f -- "$file"; done <"$list"
  rm -rf -- "$library"
}

if [ -n "$uninstall" ]; then
  [ -f "$list" ] || failed "isrfs is not installed in $prefix" 'name the prefix that it was installed into: --prefix DIR'
  remove_installed
  say "isrfs was removed from $prefix; VMs, sessions and caches are where they were"
  exit 0
fi

if [ ! -f "$here/dist/cli/main.js" ] || [ ! -d "$here/node_modules" ]; then
  failed 'this clone is not built' "cd $here && sh mount-scripts/setup && npm run build"
fi
if ! mkdir -p "$prefix" 2>/dev/null || [ ! -w "$prefix" ]; then
  failed "$prefix cannot be written" 'choose another one with --prefix, or be root'
fi
[ ! -f "$list" ] || remove_installed

mkdir -p "$library"
: >"$list"
# put MODE SOURCE TARGET
put() {
  mkdir -p "$(dirname "$3")"
  install -m "$1" "$2" "$3"
  echo "$3" >>"$list"
}
# link TARGET NAME
link() {
  mkdir -p "$(dirname "$2")"
  ln -sfn "$1" "$2"
  echo "$2" >>"$list"
}

cp -R "$here/dist" "$here/docs" "$here/native-notes" "$here/package.json" "$here/package-lock.json" "$here/LICENSE" "$library/"
mkdir "$library/node_modules"
cp -R "$here/node_modules/." "$library/node_modules/"
# What only builds and tests need stays behind; nothing is fetched for this.
(cd "$library" && npm prune --omit=dev --offline --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) ||
  failed 'npm prune failed, see above' 'the installation works, and is larger than it had to be'
chmod 755 "$library/dist/cli/main.js"
link "$library/dist/cli/main.js" "$prefix/bin/isrfs"
mkdir -p "$library/mount-scripts"
for script in common fuse-launch isrfs-resume isrfs-suspend setup-host mount.isrfs stop-at-shutdown; do
  install -m 755 "$here/mount-scripts/$script" "$library/mount-scripts/$script"
done
link "$library/mount-scripts/isrfs-resume" "$prefix/bin/isrfs-resume"
link "$library/mount-scripts/isrfs-suspend" "$prefix/bin/isrfs-suspend"
link "$library/mount-scripts/setup-host" "$prefix/bin/isrfs-setup-host"
link "$library/mount-scripts/mount.isrfs" "$prefix/sbin/mount.isrfs"
case $prefix in
/usr | /usr/local)
  # mount(8) looks nowhere else
  link "$library/mount-scripts/mount.isrfs" /sbin/mount.isrfs
  link "$library/mount-scripts/mount.isrfs" /sbin/umount.fuse.isrfs
  ;;
*) say "for mount -t isrfs, as root: ln -s $prefix/sbin/mount.isrfs /sbin/" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for unit in isrfs@.service isrfs-inhibit@.service; do
  sed "s|@prefix@|$prefix|g" "$here/mount-scripts/$unit" >"$work/$unit"
  put 644 "$work/$unit" "$prefix/lib/systemd/system/$unit"
done
put 644 "$here/mount-scripts/logind.conf" "$prefix/lib/systemd/logind.conf.d/isrfs.conf"
for shell in bash zsh fish; do node "$library/dist/cli/main.js" completion $shell >"$work/$shell"; done
put 644 "$work/bash" "$prefix/share/bash-completion/completions/isrfs"
put 644 "$work/zsh" "$prefix/share/zsh/site-functions/_isrfs"
mkdir "$work/man"
node "$library/dist/cli/main.js" manual "$work/man"
for page in "$work/man"/*; do put 644 "$page" "$prefix/share/man/man1/${page##*/}"; done
put 644 "$work/fish" "$prefix/share/fish/vendor_completions.d/isrfs.fish"
say "isrfs $("$prefix/bin/isrfs" --version) is in $prefix"
case :$PATH: in
*":$prefix/bin:"*) ;;
*) say "$prefix/bin is not in PATH" ;;
esac
say "next: $prefix/bin/isrfs-setup-host looks whether this host is fit"

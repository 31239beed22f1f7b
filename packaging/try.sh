#!/usr/bin/env bash
# Installs the package in a clean root, starts the member there as its user with the settings that
# the package brings, talks to it, and removes the package:
#
#     packaging/try.sh quorate_….deb [BASE.tar]
#
# The root is that of mmdebstrap, or BASE.tar. Needs root; network, mounts and processes are in
# namespaces of their own.
set -euo pipefail

deb=$(realpath "$1")
base=${2:-}
if [ -z "$base" ]; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    base=$made/base.tar
    mmdebstrap --quiet --variant=essential --include=adduser "$release" "$base"
fi
if [ -z "${TRY_INSIDE:-}" ]; then
    TRY_INSIDE=1 unshare --net --mount --pid --fork --kill-child "$0" "$deb" "$base"
    exit
fi
ip link set lo up 2>/dev/null || ifconfig lo up

work=$(mktemp -d)
root=$work/root
member=
finish() {
    [ -z "$member" ] || kill "$member" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
ok() { echo "ok $*"; }
inside() { chroot "$root" "$@"; }

mkdir "$root"
tar -xf "$base" -C "$root"
mount -t proc proc "$root/proc"
dpkg --root="$root" --install "$deb" >"$work/install.log" 2>&1 || { cat "$work/install.log"; fail install; }
ok "installed in a clean root"

inside getent passwd etcd >/dev/null || fail "no user etcd"
[ "$(inside stat -c '%U %a' /var/lib/etcd)" = "etcd 700" ] || fail "the data directory is another's"
ok "the user etcd owns its directory"

for page in etcd.8 etcd-gateway-start.8 etcdctl.1 etcdctl-lease-grant.1 etcdutl-snapshot-restore.1; do
    gzip -dc "$root/usr/share/man/man${page##*.}/$page.gz" | grep -q '^\.SH NAME' || fail "page $page"
done
for program in etcd etcdctl etcdutl; do
    bash -n "$root/usr/share/bash-completion/completions/$program" || fail "completion of $program"
done
ok "pages and completions"

# The unit's settings, as systemd would give them.
settings=$(sed -n 's/^\(ETCD_[A-Z_]*=.*\)/\1/p' "$root/etc/etcd/etcd.env")
unit=$(sed -n 's/^Environment=\(ETCD_[A-Z_]*=.*\)/\1/p' "$root/usr/lib/systemd/system/etcd.service")
start=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/etcd.service")
# shellcheck disable=SC2086 # one word for each setting
env -i PATH="$PATH" ${unit//%l/host} $settings chroot --userspec=etcd:etcd "$root" "$start" >"$work/log" 2>&1 &
member=$!
for _ in $(seq 300); do
    inside etcdctl --command-timeout=1s endpoint health >/dev/null 2>&1 && break
    kill -0 "$member" 2>/dev/null || { cat "$work/log"; fail "the member ended"; }
    sleep 0.1
done
[ "$(inside etcdctl put a b)" = OK ] || { cat "$work/log"; fail put; }
[ "$(inside etcdctl get a --print-value-only)" = b ] || fail get
inside test -d /var/lib/etcd/member || fail "no data where the unit says"
ok "a member of its own serves"

inside etcdctl snapshot save /tmp/etcd.db >/dev/null 2>&1 || fail "snapshot save"
for tool in etcdctl etcdutl; do
    inside "$tool" snapshot status /tmp/etcd.db >"$work/$tool" 2>/dev/null || fail "$tool snapshot status"
done
cmp "$work/etcdctl" "$work/etcdutl" || fail "etcdctl and etcdutl tell different things of a snapshot"
inside etcdctl snapshot restore /tmp/etcd.db --data-dir=/tmp/restored >/dev/null 2>&1 || fail restore
inside test -f /tmp/restored/member/snap/db || fail "nothing was restored"
ok "old commands for snapshots are handed over to etcdutl"

chroot "$root" etcdctl service advertise web 10.0.0.1:80 >"$work/service" &
service=$!
for _ in $(seq 100); do
    [ "$(inside etcdctl service list web)" = 10.0.0.1:80 ] && break
    sleep 0.1
done
[ "$(inside etcdctl service list web)" = 10.0.0.1:80 ] || fail "the service is not known"
kill -TERM "$service"
wait "$service" || fail "the advertisement ended badly"
[ -z "$(inside etcdctl service list web)" ] || fail "the service is still known"
ok "a service comes and goes"

kill -TERM "$member"
wait "$member" && code=0 || code=$?
[ "$code" = 143 ] || fail "the member ended with $code"
member=
dpkg --root="$root" --purge quorate >/dev/null 2>&1 || fail purge
inside test -d /var/lib/etcd/member || fail "purge took the data"
[ ! -e "$root/usr/bin/etcd" ] && [ ! -e "$root/etc/etcd/etcd.env" ] || fail "files stay behind"
ok "purged; the data stays"

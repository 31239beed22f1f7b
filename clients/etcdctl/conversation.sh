#!/usr/bin/env bash
# A conversation with an etcd server through etcdctl 3.4 or later.
#
# Usage: conversation.sh ETCDCTL URL. Prints one line for each step, ends with the first failure.
set -uo pipefail

etcdctl=$1
url=$2
export ETCDCTL_API=3
work=$(mktemp -d)
children=()
current=start

# The processes that this script started end with it.
leave() {
  local code=$?
  for child in "${children[@]}"; do
    kill "$child" 2>/dev/null
  done
  rm -rf "$work"
  exit "$code"
}
trap leave EXIT

fail() {
  echo "FAILED $current: $*"
  exit 1
}

ctl() { "$etcdctl" --endpoints="$url" "$@"; }

# ask WANTED WORDS...: the command must succeed and print exactly that.
ask() {
  local wanted=$1 came
  shift
  came=$(ctl "$@" 2>"$work/stderr") || fail "$*: $(<"$work/stderr")"
  [ "$came" = "$wanted" ] || fail "$*: '$came' instead of '$wanted'"
}

# matches PATTERN WORDS...: what it prints must match.
matches() {
  local pattern=$1 came
  shift
  came=$(ctl "$@" 2>&1) || fail "$*: $came"
  [[ $came =~ $pattern ]] || fail "$*: '$came' does not match '$pattern'"
}

# refused TEXT WORDS...: it must fail and say so.
refused() {
  local text=$1 came
  shift
  came=$(ctl "$@" 2>&1) && fail "$*: succeeded with '$came'"
  [[ $came == *"$text"* ]] || fail "$*: '$came' does not say '$text'"
}

# await DESCRIPTION COMMAND...: repeats the command until it succeeds, at most 20 s.
await() {
  local what=$1 end=$((SECONDS + 20))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "waited in vain until $what"
    sleep 0.05
  done
}

# holds FILE TEXT: the file is that text.
holds() { [ "$(<"$1")" = "$2" ]; }
has() { [[ $(<"$1") == *"$2"* ]]; }

# background FILE WORDS...: starts a command whose output goes into the file.
background() {
  local file=$1
  shift
  : >"$file"
  "$etcdctl" --endpoints="$url" "$@" <&0 >"$file" 2>&1 &
  children+=($!)
}

finish() {
  # A shell makes what it starts in the background deaf to an interrupt.
  kill -TERM "$1" 2>/dev/null
  wait "$1" 2>/dev/null
  return 0
}

# step NAME...: the one before has passed when the next begins.
step() {
  [ "$current" = start ] || echo "ok $current"
  current=$*
}

# The number behind a name in the output as fields.
field() { ctl "${@:2}" -w fields | sed -n "s/^\"$1\" : //p" | head -n 1; }

step put and get
ask OK put kv/a one
ask $'kv/a\none' get kv/a
ask one get kv/a --print-value-only
ask $'OK\nkv/a\none' put kv/a two --prev-kv
first=$(field Revision get kv/a)
ask $'kv/a\none' get kv/a --rev=$((first - 1))
ask '' get kv/none
printf 'from standard input' | ctl put kv/stdin >/dev/null || fail 'put from standard input'
ask 'from standard input' get kv/stdin --print-value-only
ask OK put --ignore-value kv/a
ask '\x6b\x76\x2f\x61'$'\n''\x74\x77\x6f' get kv/a --hex
matches '"version":3' get kv/a -w json
ask $'kv/a\ntwo' get kv/a --consistency=s

step what is refused
refused 'etcdserver: requested lease not found' put x x --lease=404
refused 'etcdserver: mvcc: required revision is a future revision' get x --rev=99999
refused 'etcdserver: key not found' put --ignore-value kv/none
head -c 1600000 /dev/zero | tr '\0' x >"$work/large"
came=$(ctl put x <"$work/large" 2>&1) && fail 'too large a value was put'
[[ $came == *'etcdserver: request is too large'* ]] || fail "too large a value: '$came'"

step ranges
for number in 0 1 2 3 4 5 6 7 8 9; do
  ask OK put "range/$number" $((9 - number))
done
keys() { tr ' ' '\n' <<<"$1" | sed '$!G'; }
ask "$(keys 'range/0 range/1 range/2')" get --prefix range/ --keys-only --limit=3
ask "$(keys 'range/3 range/4')" get range/3 range/5 --keys-only
ask "$(keys 'range/8 range/9')" get --from-key range/8 --keys-only
ask "$(keys 'range/9')" get --prefix range/ --keys-only --limit=1 --sort-by=key --order=DESCEND
ask $'range/9\n0' get --prefix range/ --limit=1 --sort-by=value --order=ASCEND
ask "$(keys 'range/0')" get --prefix range/ --keys-only --limit=1 --sort-by=create
ask "$(keys 'range/9')" get --prefix range/ --keys-only --limit=1 --sort-by=modify --order=DESCEND
matches '"Count" : 10' get --prefix range/ --limit=1 -w fields
matches '"More" : true' get --prefix range/ --limit=1 -w fields

step delete
ask $'1\nkv/a\ntwo' del kv/a --prev-kv
ask 0 del kv/a
ask 2 del range/0 range/2
ask 8 del --prefix range/

step txn
txn() {
  local came
  came=$(printf '%b' "$1" | ctl txn 2>&1) || fail "txn: $came"
  [ "$came" = "$(printf '%b' "$2")" ] || fail "txn: '$came'"
}
ask OK put txn/a 1
txn 'value("txn/a") = "1"\nversion("txn/a") > "0"\n\nput txn/b 2\nget txn/a\n\nget txn/b\n\n' \
  'SUCCESS\n\nOK\n\ntxn/a\n1'
txn 'create("txn/a") = "0"\n\nput txn/c 3\n\ndel txn/b\nget txn/b\n\n' 'FAILURE\n\n1'
came=$(printf '\nput x 1\nput x 2\n\n\n' | ctl txn 2>&1) && fail 'a key was put twice'
[[ $came == *'etcdserver: duplicate key given in txn request'* ]] || fail "put twice: '$came'"

step watch
background "$work/watch" watch --prefix watch/
watching=${children[-1]}
# The watch has begun when it sees a write.
seen() { ctl put watch/begin x >/dev/null && has "$work/watch" watch/begin; }
await 'the watch has begun' seen
begin=$(field Revision put watch/a 1)
ask OK put other 1
ask OK put watch/b 2
ask 1 del watch/a
wanted=$'PUT\nwatch/a\n1\nPUT\nwatch/b\n2\nDELETE\nwatch/a'
ends() { [[ $(<"$work/watch") == *"$wanted" ]]; }
await 'the events have come' ends
finish "$watching"

step watch from a revision
background "$work/old" watch watch/a --rev="$begin" --prev-kv
await 'the old events have come' holds "$work/old" $'PUT\nwatch/a\n1\nDELETE\nwatch/a\n1\nwatch/a'
finish "${children[-1]}"

step watch with a command
background "$work/exec" watch watch/b --rev="$begin" -- \
  sh -c 'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_VALUE"'
await 'the command has run' has "$work/exec" '"PUT" "2"'
finish "${children[-1]}"

step watch asks for progress
mkfifo "$work/questions"
exec 3<>"$work/questions"
background "$work/answers" watch -i <&3
echo 'watch watch/quiet' >&3
asked() { echo progress >&3 && has "$work/answers" 'progress notify: '; }
await 'progress is told' asked
exec 3>&-
finish "${children[-1]}"

step compaction
ask OK put compact 1
ask OK put compact 2
revision=$(field Revision get compact)
ask "compacted revision $revision" compaction "$revision" --physical
refused 'etcdserver: mvcc: required revision has been compacted' get compact --rev=$((revision - 1))
refused 'etcdserver: mvcc: required revision has been compacted' compaction $((revision - 1))
refused "required revision has been compacted" watch compact --rev=1

step lease
lease=$(ctl lease grant 60 | sed 's/^lease \([0-9a-f]*\) granted with TTL(60s)$/\1/')
ask OK put lease/a x --lease="$lease"
ask OK put lease/b x --lease="$lease"
matches "^lease $lease granted with TTL\(60s\), remaining\(5[0-9]s\), attached keys\(" \
  lease timetolive "$lease" --keys
matches "found [0-9]+ leases.*$lease" lease list
ask "lease $lease keepalived with TTL(60)" lease keep-alive --once "$lease"
ask "lease $lease revoked" lease revoke "$lease"
ask '' get --prefix lease/
refused 'etcdserver: requested lease not found' lease revoke "$lease"
ask "lease $lease already expired" lease timetolive "$lease"
short=$(ctl lease grant 1 | cut -d' ' -f2)
ask OK put lease/short x --lease="$short"
gone() { [ -z "$(ctl get lease/short)" ]; }
await 'the lease has expired' gone
refused 'etcdserver: requested lease not found' lease keep-alive --once "$short"

step lock
background "$work/lock1" lock held --ttl=10
holder=${children[-1]}
await 'the first holds it' has "$work/lock1" held/
background "$work/lock2" lock held echo "the second has it"
second=${children[-1]}
queue() { [ "$(ctl get --prefix held/ --keys-only | grep -c held/)" = "$1" ]; }
await 'both stand in the queue' queue 2
has "$work/lock2" second && fail 'two hold it'
finish "$holder"
wait "$second" || fail "the second: $(<"$work/lock2")"
await 'the second had it' has "$work/lock2" 'the second has it'
await 'the queue is empty' queue 0

step election
background "$work/elect1" elect office first
first=${children[-1]}
await 'the first is elected' has "$work/elect1" first
background "$work/listen" elect --listen office
listener=${children[-1]}
await 'the listener knows' has "$work/listen" first
background "$work/elect2" elect office second
second=${children[-1]}
finish "$first"
await 'the second is elected' has "$work/elect2" second
await 'the listener knows' has "$work/listen" second
finish "$second"
finish "$listener"

step members
member=$(field MemberID get compact)
matches "^$(printf %x "$member"), started, e2e, .*, $url, false$" member list
matches '"clientURLs":\["'"$url" member list -w json

step endpoint
matches "^$url is healthy: successfully committed proposal" endpoint health
matches "^$url, $(printf %x "$member"), [0-9.]+, .*, true, false, " endpoint status
matches '"dbSize":[1-9]' endpoint status -w json
matches "^$url, [1-9]" endpoint hashkv

step alarms and defragmentation
ask '' alarm list
ask '' alarm disarm
matches 'Finished defragmenting etcd member' defrag
ask $'compact\n2' get compact

step snapshot
matches 'Snapshot saved at' snapshot save "$work/db"
matches '"totalKey"' snapshot status "$work/db" -w json

step unknown members
refused 'etcdserver: bad leader transferee' move-leader 404
refused 'etcdserver: member not found' member remove 404

step end

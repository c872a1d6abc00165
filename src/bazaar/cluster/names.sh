#!/bin/sh
# Keeps a zone to the edges that answer, or to all of them where none seems to.
cd "$(dirname "$0")" || exit

alive() {
  while read -r address port; do
    timeout 1 bash -c "exec 3<>/dev/tcp/$address/$port" 2>/dev/null && echo "$address"
  done <edges
}

zone() {
  read -r domain services <names
  echo "\$ORIGIN $domain."
  echo '$TTL 5'
  echo "@ IN SOA ns1 hostmaster $(date +%s) 60 30 3600 5"
  number=0
  while read -r address port; do
    number=$((number + 1))
    echo "@ IN NS ns$number"
    echo "ns$number IN A $address"
  done <edges
  for address in $1; do
    for service in $services; do echo "$service IN A $address"; done
  done
}

known=
while :; do
  found=$(alive)
  [ -n "$found" ] || found=$(cut -d ' ' -f 1 edges)
  if [ "$found" != "$known" ]; then
    zone "$found" >zone.new && mv -f zone.new zone
    known=$found
  fi
  [ "${1:-}" != once ] || exit 0
  sleep 2
done

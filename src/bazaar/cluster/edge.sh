# Makes a machine an edge of a bazaar, of the files that lie in @NEW@, and tells what it lacks.
there=@THERE@ new=@NEW@ name=@BAZAAR@
if ! command -v haproxy >/dev/null; then
  if command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends haproxy >/dev/null
    systemctl disable -q --now haproxy.service || true
  else
    dnf install -y -q haproxy >/dev/null
  fi
fi
mkdir -p "$new/empty"
: >"$new/servers.state"
(cd "$new" && haproxy -c -q -C "$new" -f haproxy.cfg)
install -D -m 0644 "$new/edge.service" /etc/systemd/system/bazaar-edge@.service
install -D -m 0644 "$new/names.service" /etc/systemd/system/bazaar-names@.service
systemctl daemon-reload
mkdir -p "$there/empty"
rm -rf "$there/certificates" "$there/shield"
[ ! -d "$new/certificates" ] || mv "$new/certificates" "$there/certificates"
for file in servers.state haproxy.cfg edges names; do
  mv -f "$new/$file" "$there/$file"
done
install -m 0755 "$new/names.sh" "$there/names.sh"
reload() {
  systemctl enable -q "$1"
  if [ "$(systemctl is-active "$1")" = active ]; then systemctl reload "$1"; else start "$1" restart; fi
}
reload "bazaar-edge@$name.service"
if [ -e "$new/zone.conf" ]; then
  # The zone first: CoreDNS reads it as soon as it is told of it.
  "$there/names.sh" once
  start "bazaar-names@$name.service" restart
  cmp -s "$new/zone.conf" "$there/zone.conf" || mv -f "$new/zone.conf" "$there/zone.conf"
else
  rm -f "$there/zone.conf"
  systemctl disable -q --now "bazaar-names@$name.service" || true
fi
[ ! -e "$new/shield" ] || mv -f "$new/shield" "$there/shield"
rm -rf "$new"

# A machine is no edge of a bazaar any more; of the last one nothing is left.
name=@BAZAAR@
for unit in "bazaar-names@$name.service" "bazaar-edge@$name.service"; do
  systemctl disable -q --now "$unit" 2>/dev/null || true
done
rm -rf @THERE@ @NEW@
if rmdir @EDGES@ 2>/dev/null; then
  rm -f /etc/systemd/system/bazaar-edge@.service /etc/systemd/system/bazaar-names@.service
fi
systemctl daemon-reload

"""The script by which a control plane tells the API what it is to know."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from bazaar.cluster import addons, objects
from bazaar.cluster.facts import ADMIN, FOLDER
from bazaar.cluster.parts import Context
from bazaar.cluster.plan import ApiPlan
from bazaar.cluster.scripts import READY_SECONDS, head

# Early on, some of the API's own objects are still being made.
_HEAD = """
k() { @KUBECTL@ "$@"; }
again() {
  n=0
  until "$@" >@FOLDER@/said 2>&1; do
    n=$((n + 1))
    [ $n -lt 60 ] || { tail -n 3 @FOLDER@/said >&2; exit 1; }
    sleep 0.25
  done
}
"""
_TEMPLATE = (
    "{{range .items}}{{if not .metadata.ownerReferences}}{{.apiVersion}} {{.kind}} "
    '{{or .metadata.namespace "-"}} {{.metadata.name}}{{"\\n"}}{{end}}{{end}}'
)
# What has our label, is nobody's part, and is not among the manifests goes.
_PRUNE = r"""
before=$(k -n kube-system get configmap @MARK@ --ignore-not-found -o 'jsonpath={.data.kinds}')
if [ -n "$before" ]; then
  cat >@FOLDER@/wanted <<'END'
@WANTED@
END
  # A kind that is gone has no objects; any other refusal is one, else they were forgotten.
  listed() {
    k get "$1" -A -l @LABEL@ -o go-template='@TEMPLATE@' >>@FOLDER@/found 2>@FOLDER@/refused ||
      grep "doesn't have a resource type" @FOLDER@/refused || { cat @FOLDER@/refused; false; }
  }
  : >@FOLDER@/found
  for kind in $(printf '%s\n' $before @KINDS@ | sort -u); do again listed "$kind"; done
  sort -u @FOLDER@/found | while read -r version kind namespace name; do
    case $version in */*) group=${version%/*} ;; *) group=- ;; esac
    grep -qxFe "$group $kind $namespace $name" @FOLDER@/wanted && continue
    [ "$kind/$name" != ConfigMap/@MARK@ ] || continue
    [ "$group" = - ] && word=$kind.$version. || word=$kind.${version##*/}.$group
    [ "$namespace" = - ] || word="-n $namespace $word"
    again k delete $word "$name" --ignore-not-found --wait=false
  done
  rm -f @FOLDER@/wanted @FOLDER@/found @FOLDER@/refused
fi"""


def manifests_script(plan: ApiPlan, context: Context) -> str:
    """What a control plane tells the API once it answers: what nodes and DNS need is among it."""
    return "\n".join([*_head(context), *_applied(plan)])


def nodes_script(plan: ApiPlan, context: Context) -> str:
    """What a control plane says of nodes as they register, and that they are to be ready."""
    lines = _head(context)
    names = list(dict.fromkeys([*plan.missing, *plan.ranges, *plan.labels, *plan.own]))
    if names:
        lines.append(
            "for n in " + " ".join(names) + "; do wait_for kube-apiserver.service "
            '"k get node $n"; done'
        )
    lines += _nodes(plan)
    if plan.missing:
        lines.append(
            f"k wait --for=condition=Ready --timeout={READY_SECONDS}s "
            + " ".join(f"node/{name}" for name in plan.missing)
            + " >/dev/null"
        )
    return "\n".join(lines)


def _head(context: Context) -> list[str]:
    kubectl = f"{context.program('kubectl')} --kubeconfig {ADMIN} --request-timeout 20s"
    return [head(), _HEAD.replace("@KUBECTL@", kubectl).replace("@FOLDER@", FOLDER)]


def _applied(plan: ApiPlan) -> Iterator[str]:
    manifests, kinds = plan.manifests, " ".join(addons.kinds(plan.manifests))
    apply = "apply --server-side --force-conflicts --field-manager bazaar"
    # A user's own may hold secrets: they stay no longer than they are needed.
    end = "END-OF-MANIFESTS"
    yield f"(umask 077; cat >{FOLDER}/manifests.yaml) <<'{end}'\n{manifests}{end}"
    yield f"again k {apply} -f {FOLDER}/manifests.yaml\nrm {FOLDER}/manifests.yaml"
    yield (
        _PRUNE.replace("@FOLDER@", FOLDER)
        .replace("@MARK@", addons.MARK)
        .replace("@TEMPLATE@", _TEMPLATE)
        .replace("@LABEL@", f"{objects.LABEL}={objects.OWNER}")
        .replace("@KINDS@", kinds)
        .replace("@WANTED@", "\n".join(addons.identities(manifests)))
    )
    yield (
        f"k -n kube-system create configmap {addons.MARK} --from-literal=digest={plan.digest} "
        f"--from-literal=kinds='{kinds}' --dry-run=client -o yaml | k {apply} -f - >/dev/null"
    )


def _nodes(plan: ApiPlan) -> Iterator[str]:
    """One patch for each node, and its taints."""
    for name in dict.fromkeys([*plan.ranges, *plan.labels, *plan.own]):
        patch: dict[str, object] = {}
        if own := plan.ranges.get(name):
            patch["spec"] = {"podCIDR": own.partition(",")[0], "podCIDRs": own.split(",")}
        metadata: dict[str, object] = {}
        if labels := plan.labels.get(name):
            metadata["labels"] = dict(labels)
        if notes := plan.own.get(name):
            metadata["annotations"] = dict(notes)
        if metadata:
            patch["metadata"] = metadata
        words = shlex.quote(json.dumps(patch))
        yield f"again k patch node {name} --type merge -p {words}"
    for name, taints in plan.taints.items():
        yield f"again k taint --overwrite node {name} " + " ".join(map(shlex.quote, taints))

"""Who may do what: bearer tokens of service accounts, and the rules of Roles and ClusterRoles bound to them."""

import secrets
import time
from dataclasses import dataclass

from tests.kubernetes.double.objects import ApiError, Key, Obj
from tests.kubernetes.double.store import Store

_ADMINS = "system:masters"
_EVERYBODY = "system:authenticated"


@dataclass(frozen=True, kw_only=True)
class User:
    """Who a request comes from."""

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody wants to do; `resource` may carry a subresource, as in "pods/log"."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


class Authorizer:
    """Tokens and rules.

    Args:
        store: Where roles and bindings are.
        enforced: False lets everybody do everything, with or without a token.
    """

    def __init__(self, store: Store, *, enforced: bool) -> None:
        self._store = store
        self.enforced = enforced
        self.admin_token = secrets.token_urlsafe(16)
        self._tokens: dict[str, tuple[Key, str, float]] = {}  # token: account, its uid, when it expires

    def issue(self, account: Key, *, seconds: float) -> str:
        """Return a new token of a service account. Raises ApiError 404 when there is no such account."""
        found = self._store.read(account)
        if found is None:
            raise ApiError(404, f'serviceaccounts "{account.name}" not found')
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (account, found["metadata"]["uid"], time.monotonic() + seconds)
        return token

    def user(self, header: str | None) -> User:
        """Return who sends this Authorization header. Raises ApiError 401 for nobody that is known."""
        token = (header or "").removeprefix("Bearer ").strip()
        if token in self._tokens:
            account, uid, expires = self._tokens[token]
            found = self._store.read(account)
            if found is not None and found["metadata"]["uid"] == uid and time.monotonic() < expires:
                groups = ("system:serviceaccounts", f"system:serviceaccounts:{account.namespace}", _EVERYBODY)
                return User(name=f"system:serviceaccount:{account.namespace}:{account.name}", groups=groups)
        elif token == self.admin_token or not self.enforced:
            return User(name="kubernetes-admin", groups=(_ADMINS, _EVERYBODY))
        raise ApiError(401, "Unauthorized")

    def check(self, user: User, request: Request) -> None:
        """Raise ApiError 403 if the user may not do this."""
        if self.enforced and not self.allows(user, request):
            name, _, _ = request.resource.partition("/")
            about = f"{name}.{request.group}" if request.group else name
            if request.name:
                about += f' "{request.name}"'
            where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
            raise ApiError(
                403,
                f'{about} is forbidden: User "{user.name}" cannot {request.verb} resource "{request.resource}" '
                f'in API group "{request.group}" {where}',
            )

    def allows(self, user: User, request: Request) -> bool:
        if _ADMINS in user.groups:
            return True
        return any(_covers(rule, request) for rule in self._rules(user, request.namespace))

    def _rules(self, user: User, namespace: str) -> list[Obj]:
        group = "rbac.authorization.k8s.io"
        bindings = [(binding, "") for binding in self._store.all("clusterrolebindings", group)]
        if namespace:
            bindings += [(binding, namespace) for binding in self._store.all("rolebindings", group, namespace)]
        rules: list[Obj] = []
        for binding, place in bindings:
            if not any(_is_subject(subject, user, place) for subject in binding.get("subjects") or []):
                continue
            reference = binding["roleRef"]
            plural = "roles" if reference["kind"] == "Role" else "clusterroles"
            role = self._store.read(Key(group, plural, place if plural == "roles" else "", reference["name"]))
            rules += (role or {}).get("rules") or []
        return rules


def _is_subject(subject: Obj, user: User, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"
    return subject["name"] in user.groups if subject["kind"] == "Group" else subject["name"] == user.name


def _covers(rule: Obj, request: Request) -> bool:
    def has(field: str, value: str) -> bool:
        values = rule.get(field) or []
        return "*" in values or value in values

    _, _, subresource = request.resource.partition("/")
    resources = rule.get("resources") or []
    names = rule.get("resourceNames") or []
    return (
        has("verbs", request.verb)
        and has("apiGroups", request.group)
        and (has("resources", request.resource) or bool(subresource and f"*/{subresource}" in resources))
        and (not names or request.name in names)
    )

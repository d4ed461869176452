"""A session of fastrnn's own, for others to be measured by: small weights beside float32."""

from __future__ import annotations

from fastrnn.converters.engines.engine import Bound, Engine
from fastrnn.runtime.session import Session


class SessionEngine(Engine):
    """Inputs that the session has fixed by constants are left out."""

    name = "fastrnn"

    def __init__(self, session: Session):
        super().__init__(session.model)
        self._session = session

    def bind(self, inputs) -> Bound:
        feeds = {name: a for name, a in inputs.items() if name in self._session.model.input_names}
        return Bound(lambda: list(self._session.run(feeds).values()), feeds.__setitem__)

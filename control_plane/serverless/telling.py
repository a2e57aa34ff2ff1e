"""What a function says of itself: one structured line for each invocation, and metrics in the
embedded format, which CloudWatch reads from the log without a call. Traces are the platform's own
(`Tracing: Active`); their id stands in each line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

Handler = Callable[[Any, Any], Any]

NAMESPACE = "orchctl"

log = logging.getLogger("orchctl.serverless")


class Telling:
    """Wraps a handler."""

    def __init__(self, function: str) -> None:
        # As it is deployed: figures of two deployments in one account are not each other's.
        name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", f"orchctl-{function}")
        self._logger = Logger(service=name)
        self._metrics = Metrics(namespace=NAMESPACE, service=name)

    def __call__(self, handler: Handler) -> Handler:
        """The handler, telling of itself."""

        @wraps(handler)
        def told(event: Any, context: Any) -> Any:
            try:
                return handler(event, context)
            except Exception:
                self._logger.exception("failed")
                raise
            finally:
                if self._metrics.metric_set:
                    self._metrics.flush_metrics()

        return self._logger.inject_lambda_context(told)

    def line(self, message: str, **figures: object) -> None:
        """The line of this invocation."""
        self._logger.info(message, extra=figures, stacklevel=3)

    def count(self, name: str, value: float, unit: MetricUnit = MetricUnit.Count) -> None:
        """One figure of this invocation. None is sent for nothing: CloudWatch is paid for each
        metric by the hour in which it hears of it."""
        if value:
            self._metrics.add_metric(name=name, unit=unit, value=value)

"""What a call asks of the engine that runs it.

`depend` and `require` give a function a condition that is looked at on the engine, before the function runs. Where it
does not hold, UnmetDependency is raised: a load-balanced task then goes to another engine, and any other call fails.
Called where it was made, such a function is just the function. A map looks once for each chunk.

    @require("numpy")                     # imported on the engine under this name
    def norm(a): return numpy.linalg.norm(a)

    @depend(has_memory, gigabytes=8)      # has_memory(gigabytes=8) is called on the engine; False: elsewhere
    def heavy(a): ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from hiersched.data import namespace
from hiersched.data.functions import MAIN, NAMESPACE, annotations_of
from hiersched.data.imports import import_into
from hiersched.errors import UnmetDependency


class dependent:
    """The function `f` under the condition that `df(*dargs, **dkwargs)` is not False on the engine."""

    def __init__(self, f: Callable[..., Any], df: Callable[..., Any], /, *dargs: Any, **dkwargs: Any) -> None:
        self.f = f
        self.df = df
        self.dargs = dargs
        self.dkwargs = dkwargs
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        self.__doc__ = f.__doc__
        self._on_engine = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)`; on an engine only if the condition holds. Raises UnmetDependency otherwise."""
        if self._on_engine:
            self.check_dependency()
        return self.f(*args, **kwargs)

    def check_dependency(self) -> None:
        """Look whether the condition holds in this process. Raises UnmetDependency if it does not."""
        if self.df(*self.dargs, **self.dkwargs) is False:
            condition = getattr(self.df, "__name__", repr(self.df))
            raise UnmetDependency(f"{self.__name__} depends on {condition}, which is False on this engine")

    def around(self, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> dependent:
        """`wrapper(f)` under the same conditions: they are looked at once, however often it calls `f`."""
        inner = self.f.around(wrapper) if isinstance(self.f, dependent) else wrapper(self.f)
        return dependent(inner, self.df, *self.dargs, **self.dkwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.f, self.df, self.dargs, self.dkwargs)

    def __repr__(self) -> str:
        return f"<dependent {self.__name__}>"


def arrive(f: Callable[..., Any], df: Callable[..., Any], dargs: tuple[Any, ...], dkwargs: dict[str, Any]) -> dependent:
    """A function with a condition where it was sent to."""
    made = dependent(f, df, *dargs, **dkwargs)
    made._on_engine = NAMESPACE.get() is not None
    return made


class depend:
    """A decorator: the function runs only on engines where `f(*args, **kwargs)` is not False.

    `f` may also raise UnmetDependency there.
    """

    def __init__(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self.f = f
        self.args = args
        self.kwargs = kwargs

    def __call__(self, function: Callable[..., Any]) -> dependent:
        """`function` under the condition."""
        return dependent(function, self.f, *self.args, **self.kwargs)


def require(*objects: Any, **mapping: Any) -> Callable[[Callable[..., Any]], dependent]:
    """A decorator: what the function needs is there on the engine under its name before it runs.

    objects: modules, or their names, to be imported; functions and classes, which are sent along. mapping: anything
    else, by the name it is to have. An engine that lacks a module does not meet the condition. Raises TypeError for an
    object without a name.
    """
    modules: list[str] = []
    for item in objects:
        if isinstance(item, str):
            modules.append(item)
        elif isinstance(item, ModuleType):
            modules.append(item.__name__)
        elif hasattr(item, "__name__"):
            mapping[item.__name__] = item
        else:
            raise TypeError(f"require() takes {type(item).__name__} objects by keyword only: what is it to be called?")

    def decorate(function: Callable[..., Any]) -> dependent:
        return dependent(function, provide, modules, mapping, _innermost(function))

    return decorate


def provide(modules: Sequence[str], objects: Mapping[str, Any], function: Callable[..., Any]) -> bool:
    """Import `modules` and set `objects` in the user namespace, and where `function` looks for its globals.

    True; raises UnmetDependency for a module that is not to be had here.
    """
    places = [namespace.user_namespace]
    own = getattr(function, "__globals__", namespace.user_namespace)
    if own is not namespace.user_namespace:
        places.append(own)
    for place in places:
        for module in modules:
            try:
                import_into(place, module)
            except ImportError as error:
                raise UnmetDependency(f"module {module!r} cannot be imported on this engine: {error}") from error
        place.update(objects)
    return True


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, whatever conditions it is under."""
    while isinstance(function, dependent):
        function = function.f
    return function


def interactive(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as if it had been defined in the notebook: on an engine it sees the user namespace as its globals.

    The function is made anew, over the globals of this process's `__main__`. Anything else that can be called is only
    marked as belonging there.
    """
    if isinstance(f, FunctionType):
        made = FunctionType(f.__code__, vars(sys.modules[MAIN]), f.__name__, f.__defaults__, f.__closure__)
        made.__kwdefaults__ = f.__kwdefaults__
        made.__doc__, made.__qualname__ = f.__doc__, f.__qualname__
        made.__annotations__ = annotations_of(f)
        made.__dict__.update(f.__dict__)
        f = made
    f.__module__ = MAIN
    return f

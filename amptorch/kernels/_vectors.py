"""Full vector registers, where the compiler would leave half of them empty."""

from typing import Any

from numba.core.registry import cpu_target

# LLVM uses half of the 512-bit registers of these processors, as if they were the first ones that
# had them, whose clock fell. Kernels take 0.82 of the time with whole ones (emeraldrapids).
FULL_WIDTH = {"sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"}


def compiler_flags() -> dict[str, Any]:
    """Return the flags of `numba.njit` with which kernels use whole registers: none where LLVM
    does so anyway, or where this numba has no such way."""
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    if processor not in FULL_WIDTH:
        return {}
    try:
        return {"pipeline_class": full_width_compiler()}
    except (ImportError, AttributeError):
        return {}


def full_width_compiler() -> type:
    """Return numba's compiler, but one that tells LLVM in each function to use 512 bits.

    Only an attribute of the function does this for the kernels alone: NUMBA_CPU_FEATURES changes
    all that a process compiles.
    """
    from numba.core.compiler import Compiler
    from numba.core.compiler_machinery import register_pass
    from numba.core.lowering import Lower
    from numba.core.typed_passes import NativeLowering

    class FullWidthLower(Lower):
        def setup_function(self, fndesc: Any) -> None:
            super().setup_function(fndesc)
            # Its own `add` takes only attributes without a value.
            if isinstance(self.function.attributes, set):
                set.add(self.function.attributes, '"prefer-vector-width"="512"')

    @register_pass(mutates_CFG=True, analysis_only=False)
    class FullWidthLowering(NativeLowering):
        _name = "full_width_lowering"

        @property
        def lowering_class(self) -> type:
            return FullWidthLower

    class FullWidthCompiler(Compiler):
        def define_pipelines(self) -> list[Any]:
            pipelines = super().define_pipelines()
            for pipeline in pipelines:
                pipeline.passes = [
                    (FullWidthLowering if each is NativeLowering else each, text)
                    for each, text in pipeline.passes
                ]
                pipeline.finalize()
            return pipelines

    return FullWidthCompiler

"""What a model version's signature says about its answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """
    One output of a signature.

    name: "" when the signature does not name it.
    kind: "string", "integer", "long", "float", "double", "boolean", "datetime", "binary", "array", "tensor", "object" or "any".
    items: what an array or a tensor holds, in the same words; "" for others.
    shape: of a tensor; -1 is any number, and the first one counts the rows.
    """

    name: str
    kind: str
    items: str = ""
    shape: tuple[int, ...] = ()

    @property
    def described(self) -> str:
        """For people: `score: double`, `array of string`, `tensor of double (-1, 3)`."""
        kind = f"{self.kind} of {self.items}" if self.items else self.kind
        sizes = f" ({', '.join(map(str, self.shape))})" if self.shape else ""
        return f"{self.name}: {kind}{sizes}" if self.name else f"{kind}{sizes}"


def described(outputs: tuple[ModelOutput, ...]) -> str:
    """All outputs of a version in one line."""
    return ", ".join(output.described for output in outputs) or "nothing"

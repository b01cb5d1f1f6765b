"""The eight drawing styles of the emoji data set, and how their pictures become classes.

A class is a pictogram, named by its slug without hyphens, since the sets use hyphens differently. Skin tones are left
out. Names that one set uses for one picture are one class, unless another set draws them differently: "bear" and
"bear-face" are one class, "man running" and "person running" are two, since newer sets distinguish them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

STYLES_NEEDED = 5
"""Styles that must draw a pictogram for it to become a class."""


@dataclass(frozen=True)
class StyleSet:
    """One published icon set, pinned to the byte."""

    style: str
    """Name of the style, and of its file in each class."""
    version: str
    integrity: str
    title: str
    author: str
    url: str
    licence: str
    """SPDX identifier."""

    @property
    def spec(self) -> str:
        """The package, as `npm pack` expects it."""
        return f"@iconify-json/{self.style}@{self.version}"


STYLE_SETS = (
    StyleSet("noto", "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Noto Emoji", "Google Inc", "https://github.com/googlefonts/noto-emoji", "Apache-2.0"),
    StyleSet("noto-v1", "1.2.5",
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Noto Emoji (v1)", "Google Inc", "https://github.com/googlefonts/noto-emoji", "Apache-2.0"),
    StyleSet("fxemoji", "1.2.2",
        "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        "Firefox OS Emoji", "Mozilla", "https://github.com/mozilla/fxemoji", "Apache-2.0"),
    StyleSet("twemoji", "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "Twitter Emoji", "Twitter", "https://github.com/jdecked/twemoji", "CC-BY-4.0"),
    StyleSet("emojione", "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "Emoji One (Colored)", "Emoji One", "https://github.com/EmojiTwo/emojitwo", "CC-BY-4.0"),
    StyleSet("openmoji", "1.2.29",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "OpenMoji", "OpenMoji", "https://github.com/hfg-gmuend/openmoji", "CC-BY-SA-4.0"),
    StyleSet("emojione-v1", "1.2.3",
        "sha512-UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        "Emoji One (v1)", "Emoji One", "https://github.com/joypixels/emojione-legacy", "CC-BY-SA-4.0"),
    StyleSet("fluent-emoji-flat", "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "Fluent Emoji Flat", "Microsoft Corporation", "https://github.com/microsoft/fluentui-emoji", "MIT"),
)  # fmt: skip

LICENCE_URLS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "MIT": "https://opensource.org/license/mit",
}

IconSet = Mapping[str, Any]
"""A parsed icons.json: icons (slug -> body, width, height, hidden), aliases (slug -> parent, hFlip), width, height."""

HOMONYMS = frozenset({"cricket"})
"""Slugs that mean one thing as an alias in one set (the game) and another as an icon in the others (the insect)."""

_SHORT_TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)$")


class Picture(NamedTuple):
    """One drawing of one set."""

    slug: str
    """Key in the set's icons."""
    mirrored: bool


def group_into_classes(
    sets: Mapping[str, IconSet], styles_needed: int = STYLES_NEEDED
) -> dict[str, dict[str, Picture]]:
    """Class name -> style -> its picture. A picture is in one class at most; a class has one picture per style.

    A picture whose names belong to several classes goes to the class of its own slug, or, if that has enough styles, to
    a class that lacks some. Retired ("hidden") drawings only fill gaps.

    Args:
        sets: style -> icon set.
        styles_needed: classes with fewer styles are left out.
    """
    pictures = {style: _pictures_by_name(icons) for style, icons in sets.items()}
    names_of = {style: _names_by_picture(named) for style, named in pictures.items()}
    group_of = _merge_names(sets, pictures, names_of)

    assignments = []
    for style, named in names_of.items():
        for picture, names in named.items():
            groups = sorted({group_of[n] for n in names}, key=lambda group: (names[0] not in group, sorted(group)))
            assignments.append((_is_hidden(sets[style], picture), len(groups) > 1, style, picture, groups))
    drawn: dict[frozenset[str], dict[str, Picture]] = defaultdict(dict)
    for _, _, style, picture, groups in sorted(assignments, key=lambda a: (a[0], a[1], a[2], a[3])):
        group = min(groups, key=lambda group: len(drawn[group]) >= styles_needed)
        drawn[group].setdefault(style, picture)

    uses = Counter(name for named in pictures.values() for name in named)
    named_groups = {min(group, key=lambda name: (-uses[name], name)): group for group in drawn}
    return {
        name: dict(sorted(drawn[group].items()))
        for name, group in sorted(named_groups.items())
        if len(drawn[group]) >= styles_needed
    }


def svg_text(icons: IconSet, picture: Picture) -> str:
    """The picture as a complete SVG file: square, with the drawing centred."""
    icon = icons["icons"][picture.slug]
    left, top = (icon.get(edge, icons.get(edge, 0)) for edge in ("left", "top"))
    width, height = (icon.get(size, icons.get(size, 16)) for size in ("width", "height"))
    body, side = icon["body"], max(width, height)
    if picture.mirrored:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{side}" height="{side}" viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def _pictures_by_name(icons: IconSet) -> dict[str, Picture]:
    """Name without hyphens -> picture, without skin tones; equal drawings count as one picture."""
    slugs = {*icons["icons"], *icons.get("aliases", {})}
    first_with: dict[tuple[str, bool], Picture] = {}
    named = {}
    for slug in sorted(slugs, key=lambda slug: (bool(icons["icons"].get(slug, {}).get("hidden")), slug)):
        if _has_skin_tone(slug, slugs):
            continue
        picture = _resolve(icons, slug)
        if picture:
            drawing = icons["icons"][picture.slug]["body"], picture.mirrored
            named[slug.replace("-", "")] = first_with.setdefault(drawing, picture)
    return named


def _resolve(icons: IconSet, slug: str) -> Picture | None:
    """Follow aliases to a drawing; None if an alias leads nowhere or changes the picture other than by mirroring it."""
    mirrored = False
    for _ in range(len(icons.get("aliases", {})) + 1):
        if slug in icons["icons"]:
            return Picture(slug, mirrored)
        alias = None if slug in HOMONYMS else icons["aliases"].get(slug)
        if alias is None or set(alias) - {"parent", "hFlip", "hidden"}:
            return None
        mirrored ^= bool(alias.get("hFlip"))
        slug = alias["parent"]
    return None


def _has_skin_tone(slug: str, slugs: set[str]) -> bool:
    base = _SHORT_TONE.sub("", slug)  # one set uses "-dark" for the others' "-dark-skin-tone"
    return "skin-tone" in slug or (base != slug and f"{base}-medium-dark" in slugs)


def _names_by_picture(named: Mapping[str, Picture]) -> dict[Picture, list[str]]:
    """Picture -> its names, the name of its own slug first."""
    names: dict[Picture, list[str]] = defaultdict(list)
    for name in sorted(named):
        names[named[name]].append(name)
    for picture, own in names.items():
        own.sort(key=lambda name, slug=picture.slug: (name != slug.replace("-", ""), name))  # type: ignore[misc]
    return names


def _merge_names(
    sets: Mapping[str, IconSet], pictures: Mapping[str, Mapping[str, Picture]],
    names_of: Mapping[str, Mapping[Picture, list[str]]],
) -> dict[str, frozenset[str]]:  # fmt: skip
    """Name -> the names of its class."""
    group_of = {name: frozenset([name]) for named in pictures.values() for name in named}
    links = {(names[0], other) for named in names_of.values() for names in named.values() for other in names[1:]}
    for first, second in sorted(links):
        merged = group_of[first] | group_of[second]
        if not any(_draws_apart(sets[style], named, merged) for style, named in pictures.items()):
            group_of.update(dict.fromkeys(merged, merged))
    return group_of


def _draws_apart(icons: IconSet, named: Mapping[str, Picture], names: frozenset[str]) -> bool:
    pictures = {named[name] for name in names if name in named}
    return sum(not _is_hidden(icons, picture) for picture in pictures) > 1


def _is_hidden(icons: IconSet, picture: Picture) -> bool:
    return bool(icons["icons"][picture.slug].get("hidden"))

"""Whether a search has taken nearly everything from one modality."""

from upop_ray.pruning.site import Keep, Site, grouped


def collapse_warnings(sites: tuple[Site, ...], keep: Keep, share: float) -> list[str]:
    """One line for each kind of a tower that keeps less than ``share`` of its units: what is left, and the cure.

    A tower that keeps less has a kind that does.
    """
    lines = []
    for name, members in grouped(sites).items():
        kept, units = sum(int(keep[site.name].sum()) for site in members), sum(site.units for site in members)
        if kept < share * units:
            lines.append(
                f"{name} keeps {kept / units:.1%} of its units ({kept} of {units}), less than search.collapse_share "
                f"{share:.0%}; search.floors.{name}={2 * share:g} keeps more, a negative "
                f"search.regularisation.{members[0].tower} has other towers lose first"
            )
    return lines

"""The `syncir` command with stub models (stubs.py): `python -m tests.faults.driver synthesize …`.

All but the three networks is what users run, the HTTP client of the query writer included.
"""

from syncir_ray.cli import main
from syncir_ray.stages import captions, features, pairs, triplets
from tests.faults import stubs

if __name__ == "__main__":
    features.Embed = stubs.Embed  # type: ignore[misc]
    pairs.Mine = stubs.Mine  # type: ignore[misc]
    captions.Caption = stubs.Caption  # type: ignore[misc]
    triplets.Filter = stubs.Filter  # type: ignore[misc]
    main()

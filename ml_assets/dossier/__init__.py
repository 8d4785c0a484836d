"""The dossier of a decision: everything that was known when it was made, as one self-contained HTML page."""

from ml_assets.dossier.differences import DiffRow, diff_of
from ml_assets.dossier.facts import ChampionFacts, DossierFacts, SpecFacts
from ml_assets.dossier.page import render

__all__ = ["ChampionFacts", "DiffRow", "DossierFacts", "SpecFacts", "diff_of", "render"]

"""Translates: text into words for comparing instructions and tasks. Deliberately simple: no dictionary.

Words lose case, accents and common English endings; a few frequent words of other languages count as their English
ones. Everything is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_WORDS = 400  # of one text; more would not change its topic
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_LONGEST = 40  # characters of a word
# Words without information about the task.
_SAYS_NOTHING = """
a an the of to in on for and or from this that these those what which is are was be as with by at it its if then
there here about into me my i we us our you your please get give show fetch extract scrape collect crawl pull grab
retrieve return want need would like can could should do does did how all any every each some many much one two
find up out over so not no have has had will them they their he she who when where page pages site website web
url link information info data details detail content tell let make just also very current currently using use der
die das den dem ein eine einen und oder von zu im am fur mit auf aus bei nach wie was ist sind alle zeige hole
finde suche bitte mir le la les des un une du et ou de dans pour sur avec est sont tous toutes trouve donne moi el
los las una y o en para con por es son todos todas dame muestra busca il lo gli e di per sono tutti trova
"""
# Names that are also common words count as names only after one of these words: `on Steam`, not `steam engines`.
COMMON = frozenset({"nature", "indeed", "steam", "guardian", "booking", "saturn", "scholar", "fandom"})
POINTING = frozenset({"on", "from", "at", "via", "auf", "bei", "von", "sur", "chez"})
# The first word of each line replaces the others.
_SAME = """
price cost costs pricing priced
price preis preise preisen prix precio precios prezzo prezzi kostet
cheap cheapest cheaper affordable inexpensive gunstig gunstigste gunstigster billig barato economico pas-cher
review reviews opinion opinions feedback bewertung bewertungen rezension rezensionen avis resena resenas recensioni
job jobs vacancy vacancies opening openings career careers position positions hiring stelle stellen stellenangebote
job emploi emplois empleo empleos trabajo lavoro arbeit
headline headlines news nachrichten schlagzeilen noticias actualites titres titulares notizie
article story stories artikel articolo articulo
weather forecast forecasts wetter vorhersage meteo tiempo temperatures temperature rain regnet sunny
recipe recipes rezept rezepte recette recettes receta recetas ricetta dish dishes meal meals
ingredient ingredients zutaten ingredientes
apartment apartments flat flats wohnung wohnungen appartement appartements piso pisos appartamento condo condos
rent rental rentals renting mieten miete louer location alquiler alquilar affitto
house houses home homes haus hauser maison casa property properties villa
hotel hotels accommodation accommodations unterkunft hostel hostels
flight flights flug fluge vol vols vuelo vuelos volo airfare airline airlines plane
train trains zug zuge verbindung verbindungen bahnhof
restaurant restaurants ristorante eatery eateries dining
trending trend trends hot popular popularity viral
comment comments reply replies kommentar kommentare commentaires comentarios
video videos clip clips vids
movie movies film films filme pelicula peliculas series show
song songs track tracks titel cancion canciones chanson lied lieder
paper papers publication publications study studies preprint preprints
share shares stock stocks equity equities aktie aktien aktienkurs
repository repositories repo repos
package packages library libraries module modules
score scores result results ergebnis ergebnisse fixtures match matches game games spiel spiele
standings table tabelle leaderboard ranking
player players spieler footballer footballers athlete
book books novel novels buch bucher livre livres libro libros
event events concert concerts conference conferences veranstaltung veranstaltungen
seller sellers vendor vendors merchant verkaufer
product products item items produkt produkte produit produits producto productos gadget
cast actor actors actress actresses starring
salary salaries wage wages pay gehalt earn earns income
recent latest newest new fresh
summary summarize summarise summarizes tldr resume zusammenfassung overview
question questions frage fragen pregunta
answer answers antwort antworten respuesta solution solutions
profile profiles account accounts bio
follower followers subscriber subscribers
coordinates latitude longitude geocode geocoding lat lng
direction directions route routing navigate
release releases version versions changelog
issue issues bug bugs ticket tickets
author authors writer writers written
dataset datasets
law legislation statute regulation regulations directive act
filing filings 10-k 10-q
buy purchase sale sales kaufen acheter comprar
apply application visa passport
used second-hand secondhand gebraucht gebrauchte occasion
search look lookup
"""
_EMPTY = frozenset(_SAYS_NOTHING.split())
_ACCENTS = re.compile(r"[\u0300-\u036f]")


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """An English word without its ending. Other words may lose a similar ending, the same on both sides."""
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) >= len(ending) + 4:
            word = word[: -len(ending)]
            return word[:-1] if word[-1] == word[-2] and word[-1] not in "lse" else word
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


_STANDS_FOR = {stem(word): stem(line.split()[0]) for line in _SAME.strip().splitlines() for word in line.split()}


def plain(text: str) -> str:
    """The text without case and accents."""
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold())).replace("'s ", " ").replace("\u2019s ", " ")


def spelled(text: str) -> list[str]:
    """The words as written, without case and accents."""
    return [word[:_LONGEST] for word in _WORD.findall(plain(text))[:MAX_WORDS]]


def meaning(words: list[str]) -> list[str]:
    """The significant words, each once, in order."""
    stems = [stem(word) for word in words if word not in _EMPTY]
    return list(dict.fromkeys(_STANDS_FOR.get(each, each) for each in stems))


@lru_cache(maxsize=2048)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a catalog text, cached because many tasks share texts."""
    return tuple(meaning(spelled(text.replace("_", " "))))

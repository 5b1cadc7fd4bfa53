"""Readable nouns for the subgroups of the Unicode CLDR, and which other subgroups one cannot be denied of.

"Is it a bird?" must not be asked with "no" as the answer where a person would hesitate: `unclear` lists the beginnings
of the subgroups that are neither clearly it nor clearly not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from upop_ray.data.emoji.annotated import Emoji

#: a subgroup with fewer training drawings is not learned from
MIN_DRAWINGS = 20


@dataclass(frozen=True)
class Noun:
    """What a drawing shows.

    :param phrase: with its article, as in "shows a bird"
    :param subgroups: of the drawings that show it
    :param unclear: beginnings of subgroups whose drawings may show it too
    """

    phrase: str
    subgroups: frozenset[str]
    unclear: tuple[str, ...]

    @property
    def name(self) -> str:
        """The phrase without its article."""
        first, _, rest = self.phrase.partition(" ")
        return rest if first in {"a", "an", "the"} else self.phrase

    def clearly_not(self, subgroup: str) -> bool:
        """Whether a drawing of this subgroup does not show it."""
        return subgroup not in self.subgroups and not subgroup.startswith(self.unclear)


# subgroup, phrase, unclear beginnings
_TABLE = """
arts-crafts | arts and crafts | tool writing household clothing
award-medal | an award | geometric sport money other-
event | a celebration | game light food-sweet plant sky emotion heart award mail
game | a game | sport event phone computer heart av-symbol animal other-
sport | sports equipment | game clothing person-sport
animal-amphibian | an amphibian | animal-reptile
animal-bird | a bird | food person-fantasy plant-other event
animal-bug | a bug | animal-reptile animal-amphibian warning
animal-mammal | a mammal | cat-face monkey-face face- animal-marine person-fantasy person-sport place-other game family
animal-marine | a sea animal | food zodiac animal-reptile animal-mammal
animal-reptile | a reptile | animal-amphibian animal-bug zodiac
plant-flower | a flower | plant-other event game emotion food clothing family other-symbol
plant-other | a plant | plant-flower food- event place- zodiac game
dishware | tableware | drink food household tool place-
drink | a drink | dishware food transport-sign sky-weather warning
food-asian | asian food | food- animal-marine drink dishware event
food-fruit | fruit | food- drink event plant
food-prepared | prepared food | food- dishware drink
food-sweet | sweet food | food- drink event
food-vegetable | a vegetable | food- plant
book-paper | a book or paper | office writing mail money music arts other-object light
clothing | clothing | sport person- other-object transport-sign hotel money arts family award medical religion
computer | computer equipment | phone game av-symbol alphanum office light science emotion
household | a household item | tool drink dishware light transport-sign clothing other- money hotel phone
light-video | a lamp or camera | science av-symbol sky-weather event computer phone other- warning
lock | a lock or key | alphanum music tool av-symbol computer
mail | mail | heart computer phone office household money place-building event book-paper
medical | medical equipment | science other- sky-weather tool person- face-unwell face- body-parts
money | money | currency office face-tongue lock mail place-building transport-sign game
music | music | musical sound person-role light av-symbol phone computer
musical-instrument | a musical instrument | music sound game person-
office | office supplies | book-paper writing tool money household mail computer time science other-
phone | a phone | av-symbol warning computer person- hand-prop emotion sound office
science | science equipment | medical tool light body-parts religion office computer
sound | a sound signal | music phone av-symbol hotel transport-sign body-parts time
tool | a tool | writing household arts office dishware sport science medical money other- lock
writing | a writing tool | arts office tool hand-prop lock person- book-paper
body-parts | a body part | hand person face- cat-face monkey-face emotion heart family animal-
family | a family or couple | person heart transport-sign hands place-
hand-fingers-closed | a closed hand | hand person- face-hand body-parts writing sport game other-object emotion
hand-fingers-open | an open hand | hand person- face-hand body-parts other-object emotion
hand-fingers-partial | a hand sign | hand person- face-hand body-parts other-object emotion
hand-prop | a hand with something | hand person- face-hand body-parts
hand-single-finger | a pointing finger | hand person- face-hand body-parts emotion
hands | two hands | hand person- face-hand body-parts family
person | a person | person- family hand face- body-parts transport-sign gender warning sky-weather
person-activity | an active person | person family transport-sign warning game sport
person-fantasy | a fantasy figure | person face- animal- game event zodiac sky-weather
person-gesture | a gesturing person | person family face-hand hand monkey-face
person-resting | a resting person | person family household
person-role | a profession or role | person family clothing
person-sport | an athlete | person sport family
person-symbol | a person symbol | person family transport-sign gender warning body-parts hands animal-mammal
cat-face | a cat face | animal-mammal face- monkey-face
emotion | an emotion symbol | heart face- cat-face event av-symbol other- sky-weather body-parts
face-affection | an affectionate face | face- cat-face heart emotion person- family
face-concerned | a worried face | face- cat-face emotion person- monkey-face
face-costume | a costume face | face- cat-face monkey-face person- sky-weather emotion animal event
face-glasses | a face with glasses | face- person-
face-hand | a face with hands | face- cat-face monkey-face person- hand emotion
face-hat | a face with hat | face- person-
face-negative | a menacing face | face- cat-face monkey-face person- emotion animal warning
face-neutral-skeptical | a neutral face | face- cat-face monkey-face person sky-weather emotion
face-sleepy | a sleepy face | face- cat-face monkey-face person emotion
face-smiling | a smiling face | face- cat-face monkey-face person emotion sky-weather animal event
face-tongue | a face with tongue | face- cat-face monkey-face person emotion body-parts animal
face-unwell | an unwell face | face- cat-face monkey-face person emotion
heart | a heart | emotion face-affection cat-face game family body-parts hand mail place-building person- event
monkey-face | a monkey face | animal-mammal face- cat-face
alphanum | a lettered sign | keycap av-symbol transport-sign warning arrow other-symbol punctuation money math place-
arrow | an arrow | av-symbol mail phone tool sport transport- geometric heart office math other- person-
av-symbol | a media button | arrow alphanum geometric phone light math other-symbol keycap transport-sign
currency | a currency symbol | money
gender | a gender symbol | transport-sign zodiac family
geometric | a geometric shape | av-symbol arrow math game other- sky-weather punctuation award
keycap | a keycap | alphanum arrow computer
math | a math symbol | arrow other-symbol punctuation av-symbol alphanum geometric medical gender religion office
other-object | other object |
other-symbol | other symbol |
punctuation | a punctuation mark | other-symbol math heart alphanum emotion keycap warning
religion | a religious symbol | place-religious zodiac science clothing other- sky-weather person- hands emotion event
transport-sign | a public sign | warning alphanum av-symbol gender transport-ground person hotel drink
warning | a warning sign | transport- alphanum av-symbol other- arrow sound punctuation drink phone
zodiac | a zodiac sign | animal religion sky-weather person tool gender other-symbol alphanum
hotel | hotel equipment | household sound clothing transport-sign
place-building | a building | place- hotel money mail person-role transport-
place-geographic | a landscape | place- sky-weather transport- animal plant event
place-map | a map or globe | place- sky-weather transport- science
place-other | other place |
place-religious | a religious building | place- religion
sky-weather | the sky or weather | place- event emotion other-symbol geometric clothing light transport-air
time | a clock | office sport science sound
transport-air | air transport | transport- sky-weather hotel event mail game
transport-ground | land transport | transport- sport person- place- warning tool animal clothing game
transport-water | water transport | transport- place- person-sport sport tool
"""

# groups that people name, wider than a subgroup; members and unclear ones are beginnings of subgroups
_WIDE = """
a face | face- cat-face monkey-face | animal- person family sky-weather emotion game event heart body-parts time
a person | family person | hand body-parts face- transport-sign gender warning game event sky-weather
a hand | hand | body-parts person family face-hand monkey-face writing other-object emotion clothing sport
an animal | animal- | cat-face monkey-face game zodiac person food face- place- clothing event
a plant | plant- | food event place- emotion clothing family game other-symbol zodiac person
food | food- | drink dishware animal plant event face-tongue game other-object emotion
transport | transport-air transport-ground transport-water | transport-sign person place- hotel sport warning
a building | place-building place-religious | place- mail money transport person religion
"""


def _nouns(lines: Iterable[str], subgroups: Iterable[str]) -> dict[str, Noun]:
    known = sorted(subgroups)
    nouns = {}
    for line in lines:
        phrase, members, unclear = (cell.strip() for cell in line.split("|"))
        chosen = frozenset(name for name in known if name.startswith(tuple(members.split())))
        nouns[phrase] = Noun(phrase, chosen, tuple(unclear.split()))
    return nouns


def _of_subgroups() -> dict[str, Noun]:
    nouns = {}
    for line in _TABLE.strip().splitlines():
        subgroup, phrase, unclear = (cell.strip() for cell in line.split("|"))
        nouns[subgroup] = Noun(phrase, frozenset([subgroup]), tuple(unclear.split()))
    return nouns


#: subgroup -> what its drawings show
NOUNS = _of_subgroups()
#: wider nouns, each over several subgroups
WIDE_NOUNS = tuple(_nouns(_WIDE.strip().splitlines(), NOUNS).values())


def frequent_nouns(training: Sequence[Emoji]) -> dict[str, Noun]:
    """Return the nouns of the subgroups that training shows often and that are one thing, not the rest of a group.

    :param training: all drawings of the training split
    """
    drawings = Counter(row.subgroup for row in training)
    return {
        subgroup: noun
        for subgroup, noun in NOUNS.items()
        if drawings[subgroup] >= MIN_DRAWINGS and not noun.name.startswith("other ")
    }

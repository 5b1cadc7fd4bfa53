"""What a drawing is about: those of its CLDR keywords that read well in a question.

The keyword lists are incomplete, so that something denied may be true all the same. To keep that rare, a topic is not
denied of a drawing whose label or subgroup names it, nor where a part of the subgroup carries it.
"""

from collections import Counter
from collections.abc import Sequence

from upop_ray.data.emoji.annotated import Emoji

#: a topic is not denied of a subgroup when this share of its drawings carries it
_COMMON = 0.2

# with the article that "is it about" needs; the keyword is what follows it
_PHRASES = """
accessibility, an airplane, alcohol, an animal, an anniversary, an arrow, art, a baby, a bag, a ball, a bank,
a banknote, a bathroom, the beach, a beverage, a bike, a bird, a birthday, blood, a boat, the body, a book, a bottle,
a bowl, a boy, bread, breakfast, a building, a bus, a button, cake, a camera, a car, a card, cash, a cat,
a celebration, a chart, a chef, a child, christmas, the cinema, a circle, a clock, clothing, a cloud, communication,
a computer, a couple, a creature, a cross, currency, data, dating, delivery, a desert, dessert, a diamond, a direction,
a disk, a doctor, a dog, a dollar, a dress, a drink, drinking, education, email, an emergency, emotion, entertainment,
an eye, a face, a fairy, a fairytale, a family, fantasy, a farm, a film, a finger, fire, a fish, a fist, a flag,
flirting, a flower, food, football, fortune, fruit, a game, a garden, a gesture, a girl, a globe, gold, a graph,
growth, halloween, a hand, a hat, a head, a headache, health, a heart, a home, a horoscope, a horse, a hotel, a house,
ice, an insect, an instrument, islam, joy, judaism, a kiss, a knife, a lab, a leaf, a letter, a library, light, a lock,
love, magic, mail, a mailbox, a man, a map, a mask, math, meat, a medal, medicine, milk, money, a monkey, a monster,
the moon, the morning, a mountain, a mouth, a movie, multiplication, music, a nap, nature, the night, the ocean,
an office, ornithology, painting, paper, a party, a passenger, pastry, peace, a pedestrian, a pen, a person, a pet,
a phone, a pig, a plane, a plant, the police, the post, punctuation, racing, a railway, rain, reading, religion,
a restaurant, rice, a rock, romance, royalty, school, science, the sea, a secret, a shirt, a shoe, shopping, a sign,
sleep, sleeping, a smile, snow, sound, space, speech, sport, a square, a star, a suit, the sun, sweat, a symbol,
a tear, teeth, time, a toilet, a tool, traffic, a train, travel, a triangle, a truck, an umbrella, a vegetable,
a vehicle, a video, water, a weapon, the weather, a wedding, a wheelchair, a woman, a worker, the world, the zodiac,
a zoo
"""
_ARTICLES = ("a ", "an ", "the ")


def _keyword(phrase: str) -> str:
    return phrase.split(" ", 1)[1] if phrase.startswith(_ARTICLES) else phrase


#: keyword -> how it reads in "is it about ...?"
TOPICS = {_keyword(phrase): phrase for phrase in " ".join(_PHRASES.split()).split(", ")}


class Topics:
    """Which topics may be affirmed or denied of a drawing.

    :param training: all drawings of the training split
    """

    def __init__(self, training: Sequence[Emoji]) -> None:
        images = Counter(row.subgroup for row in training)
        carried = Counter((row.subgroup, tag) for row in training for tag in row.tags)
        self.known = {tag for _, tag in carried} & TOPICS.keys()
        self._common = {pair for pair, count in carried.items() if count >= _COMMON * images[pair[0]]}

    def own(self, row: Emoji, held_out: bool) -> list[str]:
        """Return the topics of a drawing, with the keywords that are held out of training or without."""
        return [tag for tag in sorted({*row.tags, *(row.held_out_tags if held_out else ())}) if tag in self.known]

    def denied(self, row: Emoji, topic: str) -> bool:
        """Whether a drawing is not about a topic, as far as its annotations tell."""
        if topic in row.tags or topic in row.held_out_tags or (row.subgroup, topic) in self._common:
            return False
        named = f"{row.label} {row.group} {row.subgroup} {' '.join(row.tags)}".replace("-", " ").split()
        return not {topic, f"{topic}s"} & {*named, *(word.removesuffix("s") for word in named)}

"""Words of photos: which nouns name the same kind of thing, and which words answer which
questions."""

from __future__ import annotations


def _set(words: str) -> set[str]:
    return set(words.split())


_COCO_CLASSES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant "
    "stop_sign parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat "
    "baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl "
    "banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave "
    "oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)
COCO_NAMES = tuple(name.replace("_", " ") for name in _COCO_CLASSES.split())
"""The 80 classes of COCO in the order of detectors trained on it."""

MALE = {"man", "boy", "guy", "gentleman", "male", "father", "son", "cowboy", "fisherman"}
FEMALE = {"woman", "girl", "lady", "female", "mother", "daughter", "bride", "cheerleader"}
PEOPLE = (
    MALE
    | FEMALE
    | _set(
        "person people child kid baby toddler infant adult someone player rider skier biker "
        "cyclist surfer skateboarder snowboarder climber swimmer runner worker performer dancer "
        "singer skater hiker team couple crowd group family friend teenager individual athlete "
        "musician officer policeman soldier jockey racer motorcyclist bicyclist pedestrian boxer "
        "wrestler gymnast golfer pitcher batter catcher goalie referee clown spectator audience "
        "human youth brother sister sibling parent tourist passenger vendor artist guitarist "
        "drummer diver jogger kayaker rower chef waiter student band spectators teen kids"
    )
)
GROUPS = {"people", "team", "couple", "crowd", "group", "family", "audience", "band", "kids"}

PLURAL = {"people", "skis", "kids", "glasses", "sunglasses", "goggles", "jeans", "pants", "shorts"}
"""Nouns that stay in the plural."""
MASSES = _set(
    "grass water snow sand dirt ice mud food wood clothing hair equipment smoke fire paint "
    "soccer football basketball baseball tennis hockey volleyball golf graffiti rain fog"
)
"""Nouns without an article."""
VAGUE = _set(
    "front way side top back middle set lot pair kind type end part edge distance background "
    "foreground picture photo photograph image view something someone one other others thing "
    "direction bottom center centre corner left right outside inside day time half number "
    "variety mid bunch"
)
"""Nouns that name nothing to be seen."""

KINDS = {
    "person": PEOPLE - GROUPS,
    "dog": _set(
        "dog puppy pup poodle greyhound terrier labrador retriever collie dalmatian pug beagle "
        "bulldog shepherd hound husky spaniel dachshund chihuahua rottweiler doggy corgi"
    ),
    "cat": {"cat", "kitten", "kitty"},
    "bird": _set(
        "bird seagull gull duck goose pigeon eagle hawk parrot swan owl crane heron pelican "
        "flamingo chicken rooster penguin ostrich"
    ),
    "horse": {"horse", "pony", "bronco"},
    "cow": {"cow", "bull", "calf", "ox", "cattle"},
    "sheep": {"sheep", "lamb"},
    "bear": {"bear"},
    "bicycle": {"bicycle", "bike", "bmx"},
    "motorcycle": {"motorcycle", "motorbike", "bike", "dirtbike", "motocross"},
    "car": {"car", "vehicle", "suv", "taxi", "cab", "van", "automobile", "sedan"},
    "truck": {"truck", "pickup", "lorry"},
    "bus": {"bus"},
    "train": {"train", "locomotive", "subway"},
    "airplane": {"airplane", "plane", "jet", "aircraft"},
    "boat": {"boat", "canoe", "kayak", "raft", "sailboat", "ship", "rowboat", "yacht"},
    "sports ball": {"ball", "soccerball", "football", "basketball", "volleyball", "softball"},
    "couch": {"couch", "sofa"},
    "chair": {"chair", "armchair", "seat"},
    "dining table": {"table", "desk"},
    "tv": {"tv", "television", "monitor", "screen"},
    "cell phone": {"phone", "cellphone", "telephone"},
    "backpack": {"backpack", "bag"},
    "handbag": {"handbag", "purse", "bag"},
    "skis": {"ski", "skis"},
    "surfboard": {"surfboard", "board", "wakeboard"},
    "skateboard": {"skateboard", "board"},
    "snowboard": {"snowboard", "board"},
    "potted plant": {"plant"},
    "cup": {"cup", "mug", "glass"},
    "wine glass": {"glass"},
    "teddy bear": {"teddy"},
    "donut": {"donut", "doughnut"},
    "refrigerator": {"refrigerator", "fridge"},
    "toilet": {"toilet"},
    "tennis racket": {"racket", "racquet"},
    "baseball bat": {"bat"},
    "baseball glove": {"glove", "mitt"},
    "orange": {"orange"},
}
"""Class of the detector -> nouns that name one of it; a class without an entry is its own noun."""

ANIMALS = _set(
    "bear elephant zebra giraffe monkey lion tiger deer goat fish rabbit turtle pig squirrel fox "
    "wolf camel donkey butterfly insect frog snake lizard leopard"
).union(*(KINDS[kind] for kind in ("dog", "cat", "bird", "horse", "cow", "sheep")))
FOOD = _set(
    "pizza sandwich cake banana apple orange broccoli carrot donut hotdog bread meat fruit "
    "vegetable salad cheese soup burrito rice pasta"
)
VEHICLES = set().union(
    *(KINDS[kind] for kind in ("car", "truck", "bus", "train", "airplane", "boat", "motorcycle"))
)
ABOVE = {"animal": ANIMALS, "person": PEOPLE, "food": FOOD, "vehicle": VEHICLES}
"""A noun -> nouns that are one of it."""

_COLOURS = "red orange yellow green blue purple pink brown black white gray tan gold silver blond"
COLOUR_WORDS = {name: name for name in _COLOURS.split()} | {
    "grey": "gray",
    "blonde": "blond",
    "golden": "gold",
    "beige": "tan",
}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

PLACES = _set(
    "beach snow grass water street field park pool ocean mountain sand road forest woods stage "
    "kitchen room city lake river dirt track court yard sidewalk air hill rock rocks bench couch "
    "bed table boat playground garden trail path desert cliff wall waterfall tree gym store "
    "restaurant bar stadium ramp bridge swing slide car bathroom office shore pond fence "
    "crowd bike horse market building parade station airport hillside mountainside backyard "
    "seaside ice rink arena countryside farm zoo race meadow wave stairs steps"
)
OUTDOORS = _set(
    "beach snow grass street field park ocean mountain sand road forest woods lake river dirt "
    "sidewalk hill trail desert cliff waterfall playground yard shore pond hillside mountainside "
    "backyard meadow sky wave countryside"
)
INDOORS = _set("kitchen room bedroom bathroom office restaurant bar gym store couch bed")

SPORTS = {
    "soccer": ("soccer",),
    "football": ("football",),
    "basketball": ("basketball",),
    "baseball": ("baseball",),
    "tennis": ("tennis",),
    "hockey": ("hockey",),
    "volleyball": ("volleyball",),
    "golf": ("golf", "golfer"),
    "surfing": ("surfing", "surfer", "surfboard", "surf"),
    "skateboarding": ("skateboarding", "skateboarder", "skateboard"),
    "snowboarding": ("snowboarding", "snowboarder", "snowboard"),
    "skiing": ("skiing", "skier", "skis"),
    "climbing": ("climbing", "climber"),
    "swimming": ("swimming", "swimmer"),
    "cycling": ("cyclist", "bicyclist", "bmx"),
    "motocross": ("motocross", "dirtbike", "motorcyclist"),
    "wrestling": ("wrestling", "wrestler"),
    "kayaking": ("kayaking", "kayaker", "kayak"),
}

DOG, BIRD, FISH, CAT, SNAKE, LIZARD = "dog", "bird", "fish", "cat", "snake", "lizard"
IMAGENET_KINDS = (
    (0, 7, FISH), (7, 25, BIRD), (25, 30, "salamander"), (30, 33, "frog"), (33, 38, "turtle"),
    (38, 49, LIZARD), (49, 51, "crocodile"), (52, 69, SNAKE), (72, 78, "spider"),
    (80, 101, BIRD), (127, 147, BIRD), (151, 269, DOG), (269, 276, "wolf"), (277, 281, "fox"),
    (281, 286, CAT), (294, 298, "bear"), (300, 321, "insect"), (321, 327, "butterfly"),
    (330, 332, "rabbit"), (365, 385, "monkey"), (385, 387, "elephant"), (389, 398, FISH),
)  # fmt: skip
"""(first, end, kind): what runs of ImageNet's classes, in the order of their numbers, have in
common."""


def kinds_of(noun: str) -> set[str]:
    """The classes of the detector that a noun may name."""
    found = {kind for kind, nouns in KINDS.items() if noun in nouns}
    return found | ({noun} if noun in COCO_NAMES and noun not in KINDS else set())


def implied(noun: str) -> set[str]:
    """Nouns that are true wherever `noun` is: itself, its kind, what stands above it."""
    found = {noun} | (kinds_of(noun) if len(kinds_of(noun)) == 1 else set())
    return found | {above for above, nouns in ABOVE.items() if found & nouns}

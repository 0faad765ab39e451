"""Words of everyday prose for the things of the scene world: what people write, and what is meant by it.

`NOUNS` names each word of world.json (class, category or group) in the ways that people do; the plural stands behind a
slash where it is irregular, `~` begins what has none. `VERBS` says how a subject touches a hazard. `VAGUE` lists what
people say when they leave open what is meant, with the plain rule that stands for it here.
"""

from questions import CATALOGUE
from world import CATEGORIES, CATEGORY, CHILDREN, CLASS, CLASSES, GROUPS, NAMES, OF_CATEGORY

NOUNS = {
    "person": """person/people, human/humans, human being/human beings, person/persons, individual/individuals,
        ~people, ~folks, ~humans, ~persons, man or woman/men and women, ~human beings, adult or child/adults or children,
        character/characters, ~anybody, ~anyone, ~somebody, ~someone, citizen, passer-by/passers-by, model, ~folk""",
    "animal": """animal, pet, creature, beast, critter, domestic animal, wild animal, living animal, farm animal, furry friend,
        four-legged friend, house pet, zoo animal, animal of any kind/animals of any kind, ~wildlife, ~livestock""",
    "child": """child/children, kid, minor, youngster, underage person/underage people, young child/young children, small
        child/small children, little kid, ~under-18s, schoolchild/schoolchildren, pupil, little one, kiddie, juvenile, young
        kid, toddler, preschooler, teenager, teen, youth/youths, young person/young people, underaged person/underaged people,
        son or daughter/sons and daughters, kindergartner, adolescent, school kid, tot""",
    "man": """man/men, guy, male, dude, gentleman/gentlemen, adult man/adult men, bloke, young man/young men, fellow, male
        person/male persons, chap, male adult, grown man/grown men, father, dad""",
    "woman": """woman/women, lady/ladies, female, adult woman/adult women, gal, young woman/young women, female person/female
        persons, female adult, young lady/young ladies, grown woman/grown women, mother, mum, mom, housewife/housewives""",
    "boy": "boy, lad, little boy, young boy, small boy, schoolboy, male child/male children",
    "girl": "girl, lass/lasses, little girl, young girl, small girl, schoolgirl, female child/female children",
    "baby": "baby/babies, infant, newborn, newborn baby/newborn babies, little baby/little babies, babe, nursling, suckling",
    "old man": """old man/old men, elderly man/elderly men, grandpa, grandfather, senior man/senior men, old guy, aged
        man/aged men, old gentleman/old gentlemen, granddad, elderly gentleman/elderly gentlemen, male senior, old fellow, male
        pensioner, older man/older men""",
    "old woman": """old woman/old women, elderly woman/elderly women, grandma, grandmother, senior woman/senior women, old
        lady/old ladies, granny/grannies, aged woman/aged women, elderly lady/elderly ladies, female senior, nana, female
        pensioner, older woman/older women""",
    "police officer": """police officer, cop, policeman/policemen, policewoman/policewomen, ~police, officer, police man/police
        men, officer of the law/officers of the law, constable, law enforcement officer, uniformed officer, bobby/bobbies,
        member of the police/members of the police, sheriff, patrolman/patrolmen""",
    "dog": "dog, puppy/puppies, hound, doggy/doggies, pup, canine, pooch/pooches, doggo, poodle, terrier, bulldog, sheepdog, mutt",
    "cat": "cat, kitten, kitty/kitties, feline, tomcat, pussycat, house cat, moggy/moggies, tabby/tabbies, alley cat",
    "horse": "horse, pony/ponies, stallion, mare, foal, steed, racehorse, gelding",
    "cow": "cow, bull, calf/calves, ox/oxen, ~cattle, dairy cow, heifer",
    "pig": "pig, piglet, hog, swine/swine, sow, boar, piggy/piggies",
    "rabbit": "rabbit, bunny/bunnies, hare, bunny rabbit, pet rabbit",
    "bird": "bird, sparrow, songbird, birdie, pigeon, feathered friend, little bird, robin, budgie, canary/canaries",
    "fish": "fish/fish, goldfish/goldfish, fish/fishes, trout/trout, carp/carp",
    "mouse": "mouse/mice, little mouse/little mice, field mouse/field mice, rodent",
    "elephant": "elephant, pachyderm, tusker, elephant calf/elephant calves, baby elephant",
    "chicken": "chicken, hen, rooster, chick, cockerel, ~poultry, cock",
    "turtle": "turtle, tortoise, sea turtle, terrapin",
    "fire": """~fire, ~flames, ~a fire, ~fires, ~burning things, ~open fire, ~open flames, ~a blaze, ~blazes, ~flame, ~a flame,
        ~blazing fire, ~campfires, ~bonfires, ~open fires, ~a naked flame""",
    "weapon": """weapon, ~weapons, ~weaponry, ~arms, ~any weapon, weapon of any kind/weapons of any kind, deadly weapon,
        dangerous weapon, real weapon, ~weapons of any sort, ~armament, combat weapon, murder weapon, lethal weapon""",
    "knife": """knife/knives, kitchen knife/kitchen knives, blade, dagger, pocket knife/pocket knives, machete, switchblade,
        carving knife/carving knives, sharp knife/sharp knives, penknife/penknives, stiletto, butcher knife/butcher knives""",
    "gun": """gun, pistol, firearm, handgun, revolver, rifle, shotgun, machine gun, ~guns, ~firearms, shooter, assault rifle,
        shooting iron, six-shooter, carbine, musket, semi-automatic, side arm""",
    "sword": "sword, saber, sabre, rapier, katana, longsword, cutlass/cutlasses, broadsword, samurai sword, scimitar",
    "bomb": "bomb, explosive, grenade, hand grenade, explosive device, time bomb, bombshell, nail bomb, ~explosives",
    "axe": "axe, ax/axes, hatchet, battleaxe, tomahawk, battle axe, wood axe, felling axe",
    "blood": """~blood, ~bloodstains, ~any blood, ~drops of blood, ~a drop of blood, ~blood stains, ~spilled blood, ~pools of
        blood, ~blood splatter, ~traces of blood, ~blood spatter, ~droplets of blood""",
    "alcohol": """~alcohol, alcoholic drink, alcoholic beverage, ~booze, ~liquor, ~alcoholic drinks, ~alcoholic beverages,
        ~spirits, ~hard drinks, ~strong drinks, ~any alcohol, drink with alcohol/drinks with alcohol, ~hard liquor, ~hooch,
        alcoholic, ~intoxicating drinks, ~intoxicants, boozy drink, ~alcoholics, ~adult beverages, ~liquors, tipple""",
    "beer": """~beer, glass of beer/glasses of beer, beer, ~a beer, lager, ~ale, pint of beer/pints of beer, mug of beer/mugs of
        beer, beer glass/beer glasses, ~ales, ~stout, ~pilsner, beer mug, ~bitter, pint""",
    "wine": """~wine, glass of wine/glasses of wine, ~red wine, ~white wine, wine glass/wine glasses, ~a wine, wine, ~rosé,
        bottle of wine/bottles of wine, ~burgundy, ~claret""",
    "cocktail": """cocktail, martini, mixed drink, long drink, margarita, mojito, cocktail glass/cocktail glasses, daiquiri,
        martini glass/martini glasses, caipirinha, cosmopolitan""",
    "cigarette": """cigarette, ~cigarettes, smoke/smokes, cig, ~tobacco, fag, ciggy/ciggies, ~tobacco products, ~any cigarettes,
        tobacco product, lit cigarette, burning cigarette, roll-up, cigarette stub""",
    "drug": """~drugs, drug, ~narcotics, ~illegal drugs, ~dope, illegal substance, controlled substance, narcotic, ~street drugs,
        illicit drug, recreational drug, ~hard drugs, ~any drugs, intoxicating substance, banned substance, party drug""",
    "pill": "pill, tablet, capsule, ~pills, ~tablets, lozenge, painkiller, sleeping pill, medicine tablet",
    "syringe": """syringe, needle, hypodermic needle, injection needle, hypodermic, medical syringe, injection syringe, hypodermic
        syringe""",
    "bed": "bed, bunk, mattress/mattresses, double bed, bunk bed, bedstead, single bed, cot, four-poster",
    "bathtub": "bathtub, tub, bath tub, bath/baths, bubble bath/bubble baths, soaking tub, bathing tub",
    "skull": "skull, death's head, human skull, cranium, death skull, skull bone, bare skull",
    "coffin": "coffin, casket, wooden coffin, sarcophagus/sarcophagi, burial casket, pine box/pine boxes",
    "gambling": """~gambling items, gambling item, ~gambling, ~games of chance, game of chance/games of chance, ~betting items,
        ~gambling equipment, ~gambling things, ~casino items, ~gambling stuff, ~gambling paraphernalia, ~casino games,
        gambling device, ~gambling gear, ~gaming machines and dice, gambling object, ~games for money, ~betting""",
    "dice": "~dice, die/dice, ~gaming dice, ~a pair of dice, ~playing dice, ~gambling dice",
    "slot machine": """slot machine, one-armed bandit, fruit machine, ~slots, gaming machine, gambling machine, slot, poker machine,
        slots machine, coin machine""",
    "tree": "tree, oak tree, palm tree, oak, pine, leafy tree, deciduous tree, pine tree",
    "car": "car, automobile, motor car, motorcar, passenger car, auto, sports car, sedan, motor vehicle",
    "house": "house, home, building, cottage, family home, dwelling, bungalow, villa",
    "flower": "flower, sunflower, blossom, bloom, rose, tulip, daisy/daisies",
    "ball": "ball, football, soccer ball, basketball, beach ball, playing ball",
    "book": "book, novel, paperback, hardback, textbook, story book, bound book",
    "guitar": "guitar, electric guitar, acoustic guitar, bass guitar",
    "umbrella": "umbrella, parasol, brolly/brollies, sunshade",
    "apple": "apple, red apple, ripe apple, green apple",
    "cup": "cup, mug, coffee cup, teacup, cup of coffee/cups of coffee, coffee mug, cup of tea/cups of tea",
    "bicycle": "bicycle, bike, push bike, cycle, racing bike, mountain bike, pushbike",
    "chair": "chair, wooden chair, armchair, dining chair, kitchen chair",
    "lamp": "lamp, light bulb, bulb, lightbulb, electric lamp, desk lamp",
    "phone": "phone, mobile phone, smartphone, cell phone, cellphone, mobile, telephone, iphone, smart phone",
    "hat": "hat, top hat, cap, bowler hat, straw hat",
    "shoe": "shoe, sneaker, trainer, boot, running shoe, sandal",
    "cake": "cake, birthday cake, gateau/gateaux, cream cake, tart, pie",
    "star": "star, yellow star, little star, golden star",
    "boat": "boat, sailing boat, ship, sailboat, yacht, rowing boat, vessel",
    "clock": "clock, alarm clock, alarm, wall clock, timepiece",
    "sofa": "sofa, couch/couches, settee, loveseat, divan",
    "candle": "candle, wax candle, tea light, taper, scented candle",
    "pencil": "pencil, coloured pencil, crayon, lead pencil",
    "hammer": "hammer, claw hammer, mallet, sledgehammer",
    "shower": "shower, shower head, showerhead, shower cabin",
    "camera": "camera, photo camera, digital camera, cam, camcorder",
    "banana": "banana, ripe banana, yellow banana",
    "bucket": "bucket, pail, water bucket, plastic bucket",
    "heart": "heart, red heart, love heart, heart symbol",
    "key": "key, door key, house key, latchkey",
}

# Words for several at once, and what they stand for.
# What is done to a hazard: "held by".
DONE = {"weapon": "held, carried, wielded, touched, waved, brandished, used, handled, pointed, gripped", "alcohol": "drunk, consumed, sipped, enjoyed, downed, swigged, tasted",
        "cigarette": "smoked, lit, puffed, held", "drug": "taken, used, consumed, swallowed, ingested, abused", "death": "touched, held, handled, carried, hugged",
        "gambling": "used, played with, touched for gambling"}
TOGETHER = {
    ("person", "animal"): """~living beings, living being, person or animal/people or animals, human or animal/humans or animals,
        ~people and animals, ~people or pets, human or beast/humans or beasts, ~humans and pets, ~man or beast, living thing, living
        creature, ~anyone, human or animal, ~living creatures, ~people as well as animals, ~animals or people, ~animals and humans""",
    ("old man", "old woman"): """~old people, ~elderly people, elderly person/elderly people, old person/old people, senior, senior
        citizen, ~the elderly, pensioner, ~grandparents, aged person/aged people, ~older people, old-age pensioner, retiree,
        ~old folks, grandparent""",
    ("skull", "coffin"): "~symbols of death, symbol of death/symbols of death, ~skulls and coffins, ~death symbols, ~signs of death",
    ("boy", "girl"): "~boys and girls, boy or girl/boys or girls, ~girls and boys, ~boys or girls",
}
# Places: what is said, and the word of the statement.
PLACES = {
    "beach": "on a beach, on the beach, at the beach, by the seaside, on a sandy beach, at the seaside, on beaches, in a beach scene",
    "grass": "on the grass, on grass, on a lawn, on the lawn, in a meadow, in the grass, on a meadow, on green grass",
    "night": "at night, in the night, by night, at nighttime, during the night, in the dark, in the middle of the night, after dark",
    "room": "in a room, in the room, inside a room, indoors, inside, in an indoor room, in rooms",
    "street": "on a street, on the street, in the street, in a street, on the road, on streets, on a road, in the streets",
}
PLACE_CLAUSE = {"beach": "the scene is on a beach", "grass": "the scene is on the grass", "night": "the scene is at night",
                "room": "the scene is in a room", "street": "the scene is on a street"}
PLACE_PHRASE = {"beach": "on a beach", "grass": "on the grass", "night": "at night", "room": "in a room", "street": "on a street"}

# Base / third person / -ing form, then what follows; {h} is the hazard. A second list holds what follows a noun.
VERBS = {
    "fire": ("""be/is/being on fire; burn/burns/burning; be/is/being in flames; be/is/being ablaze; stand/stands/standing in flames;
        be/is/being engulfed in flames; be/is/being set on fire; catch/catches/catching fire; go/goes/going up in flames;
        be/is/being set ablaze; be/is/being set alight; be/is/being burnt; be/is/being burned; be/is/being aflame;
        be/is/being consumed by fire; be/is/being alight; be/is/being burned alive; burn/burns/burning alive; get/gets/getting burnt;
        be/is/being surrounded by flames; have/has/having a burning body; be/is/being in a blaze; get/gets/getting set on fire""",
             """on fire; in flames; that {be} on fire; whose body is on fire; engulfed in flames; set on fire; engulfed by flames;
        ablaze; burning; with a burning body; that {be} burning; set ablaze; set alight; that burn{s}; covered in flames;
        consumed by fire; whose bodies are on fire; wrapped in flames; in a fire; aflame"""),
    "weapon": ("""hold/holds/holding {h}; carry/carries/carrying {h}; wield/wields/wielding {h}; brandish/brandishes/brandishing
        {h}; wave/waves/waving {h}; point/points/pointing {h}; aim/aims/aiming {h}; grip/grips/gripping {h}; swing/swings/swinging {h};
        be/is/being armed with {h}; have/has/having {h} in hand; have/has/having {h} in their hands; bear/bears/bearing {h};
        clutch/clutches/clutching {h}; play/plays/playing with {h}; touch/touches/touching {h}; handle/handles/handling {h};
        use/uses/using {h}; be/is/being equipped with {h}; hold/holds/holding {h} in the hand; grab/grabs/grabbing {h};
        threaten/threatens/threatening someone with {h}; pose/poses/posing with {h}; show/shows/showing off {h}; possess/possesses/possessing {h};
        draw/draws/drawing {h}; raise/raises/raising {h}; run/runs/running around with {h}; be/is/being in possession of {h};
        be/is/being seen with {h} in hand; flourish/flourishes/flourishing {h}; hold/holds/holding {h} up; lift/lifts/lifting {h}""",
               """with {h}; with {h} in hand; with {h} in the hand; with {h} in their hands; armed with {h}; who hold{s} {h}; who carr{ies}
        {h}; having {h} in hand; with {h} in one hand; that {be} holding {h}; who {be} carrying {h}; equipped with {h}; who bear{s} {h};
        that carr{ies} {h}; who wield{s} {h}; in possession of {h}; that hold{s} {h}; with a hand on {h}"""),
    "blood": ("""bleed/bleeds/bleeding; be/is/being covered in blood; have/has/having a bloody injury; have/has/having a bloody wound;
        be/is/being bloody; be/is/being smeared with blood; have/has/having bleeding wounds; be/is/being injured; be/is/being wounded;
        lose/loses/losing blood; be/is/being bloodied; have/has/having blood on the body; be/is/being hurt and bleeding; show/shows/showing
        a bloody wound; suffer/suffers/suffering from a bleeding wound; be/is/being stained with blood; have/has/having bloody injuries;
        drip/drips/dripping with blood; be/is/being drenched in blood; have/has/having an open wound; be/is/being soaked in blood;
        bleed/bleeds/bleeding from a wound; be/is/being visibly injured; have/has/having a bleeding cut; be/is/being splattered with blood""",
              """with a bloody injury; with bloody injuries; covered in blood; with blood on {them}; with a bleeding wound; who {be}
        bleeding; that {be} bleeding; with bleeding wounds; with a bloody wound; with visible bloody wounds; smeared with blood; with
        injuries; with an open wound; with open wounds; dripping with blood; bleeding from a wound; whose body has a bloody injury;
        stained with blood; with blood on the body; that {be} covered in blood; that {be} injured; soaked in blood; with a bloodied body;
        with bleeding injuries; covered with blood; full of blood; in a pool of blood"""),
    "alcohol": ("""drink/drinks/drinking {h}; sip/sips/sipping {h}; swig/swigs/swigging {h}; gulp/gulps/gulping {h}; down/downs/downing {h};
        consume/consumes/consuming {h}; have/has/having a sip of {h}; enjoy/enjoys/enjoying {h}; knock/knocks/knocking back {h};
        chug/chugs/chugging {h}; guzzle/guzzles/guzzling {h}; take/takes/taking a sip of {h}; sip/sips/sipping at {h}; quaff/quaffs/quaffing {h};
        be/is/being seen drinking {h}; drink/drinks/drinking from {h}; swill/swills/swilling {h}; taste/tastes/tasting {h}; booze/boozes/boozing
        on {h}; nip/nips/nipping at {h}; swallow/swallows/swallowing {h}; raise/raises/raising and drink{ing} {h}; have/has/having {h} to drink""",
                """who drink{s} {h}; that drink{s} {h}; who {be} drinking {h}; that {be} drinking {h}; in the act of drinking {h};
        who consume{s} {h}; caught drinking {h}; that {be} sipping {h}"""),
    "cigarette": ("""smoke/smokes/smoking; smoke/smokes/smoking a cigarette; smoke/smokes/smoking cigarettes; puff/puffs/puffing on a
        cigarette; light/lights/lighting a cigarette; light/lights/lighting up a cigarette; smoke/smokes/smoking tobacco;
        have/has/having a cigarette in the mouth; hold/holds/holding a cigarette; be/is/being seen smoking; drag/drags/dragging on a cigarette;
        puff/puffs/puffing a cigarette; have/has/having a smoke; draw/draws/drawing on a cigarette; smoke/smokes/smoking a fag; take/takes/taking a drag
        on a cigarette; inhale/inhales/inhaling tobacco smoke; puff/puffs/puffing away; suck/sucks/sucking on a cigarette; have/has/having a fag;
        pull/pulls/pulling on a cigarette; enjoy/enjoys/enjoying a cigarette; smoke/smokes/smoking cigs; indulge/indulges/indulging in smoking""",
                  """who smoke{s}; that smoke{s}; with a cigarette in the mouth; with a cigarette between the lips; who smoke{s} cigarettes;
        with a lit cigarette in hand; who {be} smoking; smoking; with a cigarette in hand; caught smoking; who puff{s} on a cigarette;
        with a burning cigarette in the mouth"""),
    "drug": ("""take/takes/taking {h}; use/uses/using {h}; consume/consumes/consuming {h}; swallow/swallows/swallowing {h}; inject/injects/injecting
        {h}; do/does/doing {h}; abuse/abuses/abusing {h}; pop/pops/popping {h}; get/gets/getting high on {h}; snort/snorts/snorting {h};
        ingest/ingests/ingesting {h}; be/is/being on {h}; try/tries/trying {h}; have/has/having {h}; be/is/being under the influence of {h};
        gulp/gulps/gulping down {h}; experiment/experiments/experimenting with {h}; administer/administers/administering {h}""",
             """on {h}; who take{s} {h}; who use{s} {h}; that take{s} {h}; who {be} taking {h}; that {be} using {h}; who consume{s} {h}; high
        on {h}; under the influence of {h}; that consume{s} {h}; who do {h}; hooked on {h}"""),
    "bed": ("""lie/lies/lying in bed; lie/lies/lying on {h}; sleep/sleeps/sleeping in {h}; lie/lies/lying in {h}; be/is/being in bed; rest/rests/resting
        on {h}; stay/stays/staying in bed; nap/naps/napping on {h}; be/is/being tucked up in bed; relax/relaxes/relaxing on {h}; sit/sits/sitting on
        {h}; lounge/lounges/lounging on {h}; sleep/sleeps/sleeping in bed; sprawl/sprawls/sprawling on {h}; sleep/sleeps/sleeping on {h};
        be/is/being on {h}; rest/rests/resting in bed; stretch/stretches/stretching out on {h}; recline/reclines/reclining on {h}; be/is/being asleep in
        bed; be/is/being in {h}; laze/lazes/lazing in bed; lie/lies/lying down on {h}; take/takes/taking a nap in bed; cuddle/cuddles/cuddling in bed""",
            """in bed; on {h}; in {h}; who lie{s} in bed; that lie{s} on {h}; tucked up in bed; asleep in bed; asleep on {h}; who {be} lying in
        bed; that {be} lying on {h}; stretched out on {h}; who sleep{s} in {h}; sprawled on {h}; who {be} in bed; laid on {h}"""),
    "bathtub": ("""take/takes/taking a bath; bathe/bathes/bathing; have/has/having a bath; sit/sits/sitting in {h}; be/is/being in {h}; lie/lies/lying
        in {h}; soak/soaks/soaking in {h}; wash/washes/washing in {h}; relax/relaxes/relaxing in {h}; be/is/being in the bath; take/takes/taking a bubble
        bath; splash/splashes/splashing in {h}; enjoy/enjoys/enjoying a bath; be/is/being bathed; sit/sits/sitting in the bath; get/gets/getting a bath;
        bathe/bathes/bathing in {h}; be/is/being seen bathing; lie/lies/lying in the bath; take/takes/taking baths; be/is/being given a bath""",
                """in {h}; in the bath; in the tub; who take{s} a bath; that {be} bathing; who bathe{s}; who {be} taking a bath; bathing; that sit{s}
        in {h}; who {be} in {h}; soaking in {h}"""),
    "death": ("""touch/touches/touching {h}; hold/holds/holding {h}; play/plays/playing with {h}; hug/hugs/hugging {h}; pose/poses/posing with {h};
        carry/carries/carrying {h}; lie/lies/lying in {h}; sit/sits/sitting on {h}; handle/handles/handling {h}; be/is/being in contact with {h};
        kiss/kisses/kissing {h}; lean/leans/leaning on {h}; embrace/embraces/embracing {h}; be/is/being in {h}; grab/grabs/grabbing {h}; lay/lays/laying
        hands on {h}; stroke/strokes/stroking {h}; pick/picks/picking up {h}""",
              "with {h} in hand; who touch{es} {h}; holding {h}; that touch{es} {h}; who {be} touching {h}; with a hand on {h}; in contact with {h}"),
    "gambling": ("""gamble/gambles/gambling; gamble/gambles/gambling with {h}; play/plays/playing with {h}; bet/bets/betting; play/plays/playing for
        money; place/places/placing bets; play/plays/playing games of chance; gamble/gambles/gambling on {h}; bet/bets/betting money; use/uses/using {h};
        play/plays/playing {h}; play/plays/playing at {h}; gamble/gambles/gambling away money; wager/wagers/wagering money; try/tries/trying their luck at {h}""",
                 """who gamble{s}; that gamble{s}; who play{s} games of chance; gambling with {h}; at {h}; who {be} gambling; with {h} in hand; betting; who
        bet{s}; that {be} gambling; playing with {h}"""),
}
# More for one hazard, or for animals.
VERBS_OF = {
    "gun": "fire/fires/firing {h}; shoot/shoots/shooting {h}; point/points/pointing {h} at someone; shoot/shoots/shooting with {h}; aim/aims/aiming {h} at someone",
    "knife": "stab/stabs/stabbing with {h}; cut/cuts/cutting with {h}; slash/slashes/slashing with {h}",
    "sword": "fight/fights/fighting with {h}; fence/fences/fencing with {h}",
    "bomb": "throw/throws/throwing {h}; plant/plants/planting {h}",
    "axe": "chop/chops/chopping with {h}",
    "dice": "roll/rolls/rolling {h}; throw/throws/throwing {h}; play/plays/playing {h}; toss/tosses/tossing {h}; cast/casts/casting {h}; shake/shakes/shaking {h}",
    "slot machine": "play/plays/playing {h}; play/plays/playing at {h}; sit/sits/sitting at {h}; feed/feeds/feeding {h}; pull/pulls/pulling the lever of {h}",
    "pill": "swallow/swallows/swallowing {h}; pop/pops/popping {h}; gulp/gulps/gulping {h}",
    "syringe": "inject/injects/injecting themselves with {h}; use/uses/using {h}; shoot/shoots/shooting up with {h}; stick/sticks/sticking {h} into the arm; get/gets/getting an injection from {h}",
    "alcohol": "drink/drinks/drinking; booze/boozes/boozing; tipple/tipples/tippling; drink/drinks/drinking booze; imbibe/imbibes/imbibing; hit/hits/hitting the bottle",
    "drug": "get/gets/getting high; shoot/shoots/shooting up; do/does/doing drugs; be/is/being on drugs; get/gets/getting stoned; trip/trips/tripping on drugs; take/takes/taking or inject{ing} drugs; smoke/smokes/smoking dope",
    "bed": "sleep/sleeps/sleeping; go/goes/going to bed; be/is/being bedded down",
    "coffin": "lie/lies/lying in {h}; sleep/sleeps/sleeping in {h}; climb/climbs/climbing into {h}",
}
ANIMAL_VERBS = """touch/touches/touching {h}; have/has/having {h} in its mouth; hold/holds/holding {h}; carry/carries/carrying {h};
    play/plays/playing with {h}; sniff/sniffs/sniffing at {h}; be/is/being in contact with {h}; step/steps/stepping on {h}; lean/leans/leaning on {h};
    bite/bites/biting {h}; sit/sits/sitting on {h}; paw/paws/pawing at {h}; lie/lies/lying on {h}; have/has/having a paw on {h}; stand/stands/standing on {h};
    rest/rests/resting a paw on {h}; wield/wields/wielding {h}; be/is/being armed with {h}; come/comes/coming into contact with {h}; rub/rubs/rubbing
    against {h}; lick/licks/licking {h}; brush/brushes/brushing against {h}; aim/aims/aiming {h}"""
ANIMAL_AFTER = """with {h}; touching {h}; with a paw on {h}; with its paw on {h}; with {h} in its mouth; with {h} in the mouth; that touch{es} {h};
    in contact with {h}; armed with {h}; holding {h}; that {be} touching {h}; that hold{s} {h}; with their paws on {h}; with {h} between the teeth"""
ADJECTIVES = {
    "fire": "burning, blazing, flaming, burning, fiery, torched", "weapon": "armed, armed, weapon-carrying, weapon-wielding, heavily armed",
    "gun": "gun-toting, gun-wielding, pistol-packing, gun-carrying, gun-slinging", "knife": "knife-wielding, knife-carrying", "sword": "sword-wielding, sword-swinging",
    "axe": "axe-wielding, axe-swinging", "blood": "bleeding, bloody, bloodied, wounded, injured, blood-covered, bloodstained, blood-soaked, bleeding, blood-smeared, maimed and bleeding",
    "alcohol": "drinking, boozing, alcohol-drinking, tippling, carousing", "beer": "beer-drinking, beer-swilling", "wine": "wine-drinking, wine-sipping",
    "cigarette": "smoking, cigarette-smoking, chain-smoking, puffing", "drug": "drug-taking, drug-using, drugged, stoned, pill-popping", "bed": "sleeping, bedridden",
    "bathtub": "bathing", "gambling": "gambling, betting",
}
# What does it, in one word: only of people.
DOERS = {"cigarette": "smoker, chain smoker, cigarette smoker", "alcohol": "drinker, boozer, alcohol drinker, drunkard", "gambling": "gambler, bettor, player of games of chance/players of games of chance",
         "drug": "drug user, drug addict, junkie, drug taker, user of drugs/users of drugs, drug abuser", "weapon": "weapon carrier, armed person/armed people",
         "bathtub": "bather", "beer": "beer drinker", "wine": "wine drinker", "blood": "casualty/casualties, injured person/injured people, wounded person/wounded people, bleeding victim"}
# What it is called as a thing of its own, when people do it.
DOINGS = {"cigarette": "smoking, tobacco use, cigarette smoking, smoking cigarettes, the smoking of cigarettes, puffing on cigarettes",
          "alcohol": "drinking, drinking alcohol, alcohol consumption, consumption of alcohol, boozing, the drinking of alcohol, drinking booze, consuming alcoholic drinks",
          "drug": "drug use, taking drugs, drug taking, drug consumption, drug abuse, use of drugs, consuming drugs, the taking of drugs, using narcotics, doing drugs",
          "bathtub": "bathing, taking a bath, having a bath, bath scenes", "bed": "lying in bed, sleeping in bed, bed scenes",
          "weapon": "holding weapons, brandishing weapons, carrying weapons, wielding weapons", "gun": "holding guns, carrying guns, pointing guns, waving guns around",
          "beer": "drinking beer, beer drinking, the drinking of beer", "wine": "drinking wine, sipping wine", "cocktail": "drinking cocktails, sipping cocktails", "knife": "brandishing knives, wielding knives, waving knives"}

# Vague prose: adjectives, nouns that go with them, whole phrases; then the plain rule. Subjects and hazards of a
# relation, or words of which one is seen.
VAGUE = {
    "violence": ("violent, aggressive, threatening, brutal, hostile, menacing, intimidating, martial, combative, warlike, too violent, belligerent",
                 """violence, anything that could be read as a threat, things that look like a threat, something that seems threatening, threatening gestures, aggression, brutality, threats, violent behaviour, acts of violence, people being violent, people threatening others, hostility,
                 fighting, brute force, people who look dangerous, militancy, violent people, aggressive poses, menace, people acting aggressively, force""",
                 (("person",), ("weapon",))),
    "gore": ("gory, graphic, disturbing, gruesome, shocking, horrific, grisly, repulsive, revolting, stomach-turning, too graphic, upsetting, disgusting, nauseating, sickening",
             """gore, disturbing injuries, shocking injuries, horrible wounds, graphic injuries, nasty injuries, carnage, gross stuff, things that make you sick, mutilation,
             ugly wounds, terrible injuries, anything too bloody for sensitive people, body horror, disgusting injuries, severe injuries, bad injuries, hideous wounds, graphic depictions""",
             (("person", "animal"), ("blood",))),
    "scary": ("scary, creepy, spooky, eerie, frightening, macabre, morbid, sinister, ghastly, horrifying, ghoulish, scary-looking, uncanny, terrifying, dark and gloomy, nightmarish, deathly, depressing and dark",
              """horror, scary stuff, stuff that might frighten little kids, things that could scare somebody, anything that may frighten children, content that scares people, whatever might frighten a child, creepiness, spookiness, things that scare people, things that give you nightmares, morbidity, Halloween stuff, anything frightful, scares,
              reminders of death, dark themes, things that frighten kids, horror motifs, creepy vibes, morbid symbols, gloom""",
              (None, ("skull", "coffin"))),
    "cruelty": ("", """cruelty to animals, mistreated pets, pictures of mistreated pets, ill-treated animals, cruelty towards pets, animal cruelty, animal abuse, suffering animals, mistreated animals, mistreatment of animals, animal suffering, animals in distress,
                abused animals, harm to animals, animals being treated badly, animals that suffer, tormented animals, animal torture, tortured animals, hurt animals, animals in pain,
                bad treatment of animals, abuse of animals, animals being harmed, animals that are hurt, cruel treatment of animals, harmed pets, animals in danger, inhumane treatment of animals""",
                (("animal",), ("blood", "fire"))),
    "indecent": ("steamy, spicy, indecent, suggestive, intimate, sexy, racy, inappropriate, lewd, saucy, risqué, too private, erotic, improper, indelicate, provocative, raunchy, naughty, embarrassing, immodest",
                 """indecency, intimacy, intimate moments, private moments, suggestive poses, bedroom stuff, people in intimate situations, people in compromising situations, people without decency,
                 moments that should stay private, lewdness, invasions of privacy, people who are too relaxed, immodesty, sensuality, nudity, people in embarrassing situations, private situations""",
                 (("person",), ("bathtub", "bed"))),
    "habits": ("", """unhealthy habits, bad habits, vices, people with bad habits, an unhealthy lifestyle, unhealthy behaviour, people setting a bad example, people living unhealthily, harmful habits, bad examples,
               unhealthy lifestyles, bad role models, people with unhealthy habits, poor life choices, people ruining their health, addictive behaviour, people who harm their health, nasty habits, habits that harm health""",
               (("person",), ("alcohol", "cigarette"))),
    "child habits": ("", """kids with bad habits, children picking up bad habits, children with unhealthy habits, minors with vices, kids behaving like adults, unhealthy behaviour of children, children setting a bad example,
                     young people with bad habits, harmful habits of minors, kids ruining their health, misbehaving kids, minors living unhealthily, children doing things meant for adults""",
                     (("child",), ("alcohol", "cigarette"))),
    "drinking": ("", """inappropriate drinking, boozy excesses, drinking binges, boozy behaviour, excesses with alcohol, drunken excesses, drinking sprees, alcohol excesses, drunkenness, excessive drinking, irresponsible drinking, people getting wasted, heavy drinking, binge drinking, drunk people, tipsy people, people who drink too much, drinking too much,
                 excessive alcohol use, wild partying, people getting drunk, intoxication, unseemly drinking, too much drinking, people who are drunk, drunken behaviour, drunks, irresponsible alcohol consumption, careless drinking,
                 problematic drinking, alcohol abuse, people partying too hard, intoxicated people, immoderate drinking""",
                 (("person",), ("alcohol",))),
    "danger": ("potentially lethal, deadly, lethal, dangerous, hazardous, harmful, unsafe, perilous, risky, life-threatening, potentially dangerous, potentially harmful",
               """dangerous things, hazards, dangerous objects, harmful objects, hazardous objects, unsafe items, things that can hurt someone, dangers, risky objects, objects that may injure people, danger, dangerous items, perils,
               things which could harm somebody, sources of danger, threats to safety, harmful things, hazardous things, harmful stuff""",
               (None, ("weapon", "fire"))),
    "child danger": ("", """dangerous things near kids, harmful objects near children, hazards close to children, dangerous things around kids, unsafe items next to minors, dangerous stuff in reach of children, hazards around children, risky objects near kids,
                     anything dangerous close to a child, harmful things with children, dangerous objects in the vicinity of minors, hazardous objects near a child, kids near dangerous things, children close to hazards, unsafe things near children, children around dangerous objects,
                     harmful things within reach of kids, dangers around little ones, perilous things beside a child""",
                     (("child",), None, ("weapon", "fire"))),
    "harm": ("", """people in danger, people at risk, people who are hurt, people getting hurt, people in distress, people suffering, accidents, people who suffer harm, suffering, people coming to harm, human suffering, people in peril, harm to people, people being harmed,
             people in pain, victims, somebody in danger, endangered people, people in trouble, harmed people, someone in a bad state, tragedies, anybody being at risk""",
             (("person",), ("blood", "fire"))),
    "child harm": ("", """children in danger, kids at risk, children put at risk, kids getting hurt, children being harmed, children who suffer, suffering kids, endangered children, harm to children, kids in danger, minors in danger, harmed children, kids in trouble, abused children, child abuse,
                   children in distress, a child at risk, children in peril, minors coming to harm, children getting hurt, children in pain, children who are put in danger""",
                   (("child",), ("blood", "fire"))),
    "adult": ("adult, mature, unsuitable for children, not child-friendly, not family-friendly, unfit for kids, not suitable for children, not for kids, 18+, not age-appropriate, unsuitable for minors, inappropriate for children, not suitable for a young audience, R-rated, bad for children, NSFW",
              """adult content, adult stuff, adults-only content, things not meant for kids, anything that isn't suitable for children, things kids should not see, content for grown-ups, mature content, things that are bad for children, things unsuitable for minors, content that is not for children,
              anything you wouldn't show a child, things that aren't family friendly, things parents would object to, anything inappropriate for kids, adult themes, things that are not child-safe""",
              (None, ("alcohol", "cigarette", "drug", "weapon"))),
    "betting": ("", """encouragement of betting, glorified betting, things that tempt people to bet, promotion of gambling, content that encourages gambling, content that glorifies betting, easy-money schemes, irresponsible gaming, temptation to gamble, casino glamour, glamorised gambling, get-rich-quick stuff,
                things that promote betting, content that makes gambling look cool, promises of quick money, addictive games, games that cost people their savings, incitement to gamble, anything that glorifies gambling""",
                (None, ("gambling",))),
    "substances": ("", """substance abuse, substance misuse, abuse of substances, misuse of substances, junkie culture, drug culture, addicts, addiction, people under the influence, misuse of medication, people abusing substances, people high on something, abuse of medicine, stoners, drug problems,
                   people who are high, glorification of drugs""",
                   (("person",), ("drug",))),
}
# Whole rules that say it without naming a thing.
VAGUE_RULES = {
    "adult": """keep it family friendly; keep it clean for kids; everything must be suitable for children; make sure it is child-friendly; pictures have to be safe for kids; content should be fit for all ages; only child-safe images; it must be suitable for minors; nothing
        you would not show a child; keep it PG; stay family-friendly; the content must be appropriate for a young audience; keep things kid-safe; our images should be OK for kids; be considerate of young viewers""",
    "violence": "keep it peaceful; images should be peaceful; pictures must look peaceful; nobody should behave aggressively; keep the mood non-violent; nobody should look threatening; people must be peaceful; nobody may threaten anybody",
    "cruelty": """animals must be treated well; animals must not be treated badly; no animal should suffer; animals should not be harmed; be kind to animals; animals must not be mistreated; don't hurt animals; animals should not come to harm; no animals were to be harmed; pets must not suffer; treat
        animals with respect; animals must never be abused; animals should be fine""",
    "harm": "nobody should get hurt; nobody should be in danger; people should not be in danger; people must not be harmed; everyone should be safe; no one may come to harm; people should never be at risk; no person should suffer; people must look safe; nobody is to be harmed; people must not be put at risk",
    "child harm": "children should not be put at risk; kids must be safe; children must not be harmed; no child should get hurt; children should never be in danger; protect children from harm; kids should not be in danger; children must not suffer; no child may be put in danger; kids must not come to harm",
    "drinking": "drink responsibly; nobody should be drunk; people should not drink too much; no one should get drunk; people must not be drunk; people should drink sensibly; nobody may be tipsy; nobody should get wasted",
    "habits": "people should live healthily; people should set a good example; show only healthy lifestyles; people must behave like role models; promote a healthy lifestyle; nobody should set a bad example; people must look healthy in what they do",
    "indecent": "keep it decent; people should be decent; respect people's privacy; everything must be decent; pictures must respect the intimacy of people; keep it modest; keep private things private; people must not be embarrassed; stay decent",
    "scary": "don't scare people; it must not be creepy; avoid frightening our audience; nothing should remind one of death; do not frighten the kids; don't give anyone nightmares; the mood should not be gloomy; it should not be too dark and scary",
    "danger": "keep it safe; make sure that nothing dangerous is there; pictures must be free of danger; everything in the picture should be harmless; it has to be safe; only harmless objects; show nothing that could hurt someone",
    "gore": "don't make people feel sick; nothing for strong stomachs only; spare us the injuries; it should not be hard to look at; it must not turn anyone's stomach; spare viewers the ugly details of injuries",
}
# Things outside the scene world: their names are taken over as they are.
FOREIGN = """zeppelin, robot, dragon, castle, mountain, river, tent, computer, keyboard, television, window, door, table, bottle, plate, fork, spoon, pizza, carrot, grape, strawberry, glove, shirt, dress/dresses, sock, suitcase, ladder, rope, wheel,
    drum, piano, violin, kite, rocket, ghost, crown, ring, diamond, flag, map, newspaper, letter, envelope, stamp, coin, tiger, lion, bear, monkey, snake, frog, spider, bee, butterfly/butterflies, whale, dolphin, shark, penguin, giraffe, zebra, camel,
    sheep/sheep, goat, duck, owl, helicopter, tractor, volcano/volcanoes, lighthouse, microscope, kangaroo, octopus/octopuses, sandwich/sandwiches, helmet, mirror, trumpet, bridge, tower, truck, train, bus/buses, motorcycle, submarine, satellite,
    bench/benches, fence, statue, fountain, tattoo, swastika, logo, mask, wig, beard, necklace, bracelet, watch/watches, backpack, wallet, passport, banknote, calculator, printer, scooter, skateboard, surfboard, snowman/snowmen, igloo, cactus/cactuses,
    mushroom, pumpkin, onion, tomato/tomatoes, potato/potatoes, burger, sausage, cheese wheel, egg, ice cream, lollipop, doll, teddy bear, puzzle, balloon, puppet, clown, wizard, witch/witches, unicorn, mermaid, vampire, zombie, alien, spaceship, planet,
    moon, cloud, rainbow, umbrella stand, drone, laptop, tablet computer, headset, microphone, speaker, billboard, traffic light, hydrant, trash can, broom, vacuum cleaner, washing machine, fridge, oven, toaster, kettle, pan, pot, saw, drill, screwdriver,
    wrench/wrenches, nail, shovel, rake, lawnmower, hose, fox/foxes, wolf/wolves, deer/deer, squirrel, hedgehog, hamster, parrot, peacock, flamingo, crab, lobster, jellyfish/jellyfish, scorpion, lizard, crocodile, dinosaur"""


def _entries(text):
    """Word lists as (singular or None, plural, is it a mass or a fixed plural)."""
    out = []
    for entry in " ".join(text.split()).split(","):
        entry = entry.strip()
        if entry.startswith("~"):
            out.append((None, entry[1:], True))
        elif "/" in entry:
            out.append((*entry.split("/"), False))
        elif entry:
            ending = "es" if entry.endswith(("s", "x", "ch", "sh")) else "s"
            out.append((entry, entry + ending, False))
    return out


def _listed(text, mark=";"):
    return [part.strip() for part in " ".join(text.split()).split(mark) if part.strip()]


def _verbs(text):
    """(base, third person, -ing form) of each verb with what follows it."""
    out = []
    for entry in _listed(text):
        first, _, rest = entry.partition(" ")
        base, third, going = first.split("/")
        out.append(tuple(f"{verb} {rest.replace('{ing}', 'ing')}".strip() for verb in (base, third, going)))
    return out


NOUNS = {word: _entries(text) for word, text in NOUNS.items()}
TOGETHER = {words: _entries(text) for words, text in TOGETHER.items()}
FOREIGN = _entries(FOREIGN)
DONE = {kind: _listed(text, ",") for kind, text in DONE.items()}
PLACES = {word: _listed(text, ",") for word, text in PLACES.items()}
AFTER = {kind: _listed(after) for kind, (_, after) in VERBS.items()}
VERBS = {kind: _verbs(verbs) for kind, (verbs, _) in VERBS.items()}
VERBS_OF = {word: _verbs(text) for word, text in VERBS_OF.items()}
ANIMAL_VERBS, ANIMAL_AFTER = _verbs(ANIMAL_VERBS), _listed(ANIMAL_AFTER)
ADJECTIVES = {word: _listed(text, ",") for word, text in ADJECTIVES.items()}
DOERS = {word: _entries(text) for word, text in DOERS.items()}
DOINGS = {word: _listed(text, ",") for word, text in DOINGS.items()}
VAGUE = {name: (_listed(adjectives, ","), _listed(phrases, ","), *rest) for name, (adjectives, phrases, *rest) in VAGUE.items()}
VAGUE_RULES = {name: _listed(text) for name, text in VAGUE_RULES.items()}

SUBJECTS = ["person", "animal", "child"] + [n for n in NAMES if CATEGORY[CLASS[n]] in ("person", "animal")]
HAZARDS = [n for n, e in CATEGORIES.items() if e["role"] == "hazard" and n != "death"]
HAZARDS += [n for n in NAMES if CATEGORIES[CATEGORY[CLASS[n]]]["role"] == "hazard" and n not in CATEGORIES]
PROPS = [n for n in NAMES if CATEGORY[CLASS[n]] == "prop"]
WORDS = SUBJECTS + HAZARDS + PROPS
assert set(WORDS) == set(NOUNS), set(WORDS) ^ set(NOUNS)


def kind(word):
    """The category of a word of the world; `other` for things outside it."""
    if word in CATEGORIES:
        return word
    if word in GROUPS:
        return CATEGORY[CLASS[GROUPS[word]["classes"][0]]]
    return CATEGORY[CLASS[word]] if word in CLASS else "other"


def one(word):
    """A word with its article, as statements have it: "a glass of beer"."""
    if word == "gambling":
        return "gambling items"
    if word in CATEGORIES or word in GROUPS:
        return (CATEGORIES.get(word) or GROUPS[word])["one"]
    if word in CLASS:
        entry = CLASSES[CLASS[word]]
        return f"{entry['article']} {entry['name']}".strip()
    return word


def seen(word):
    """The statement that a word can be seen."""
    many = word in ("gambling", "dice") or (kind(word) == "other" and not word.startswith(("a ", "an ")))
    return f"{one(word)} {'are' if many else 'is'} visible"


_RELATION = {"fire": "the body of {s} is on fire", "blood": "{s} has a bloody injury", "alcohol": "{s} is drinking {h}",
             "cigarette": "{s} is smoking a cigarette", "drug": "{s} is taking {h}", "bed": "{s} is lying on a bed",
             "bathtub": "{s} is taking a bath", "death": "{s} is touching {h}", "gambling": "{s} is gambling with {h}"}
_NOUN = {"fire": "whose body is on fire", "blood": "with a bloody injury", "alcohol": "drinking {h}",
         "cigarette": "smoking a cigarette", "drug": "taking {h}", "bed": "lying on a bed", "bathtub": "taking a bath",
         "death": "touching {h}", "gambling": "gambling with {h}"}
_ABSTRACT = {"alcohol": "alcohol", "drug": "drugs"}


def touching(subject, hazard):
    """The statement that a subject touches a hazard, in the words of the hazard's relation."""
    if kind(hazard) == "weapon":
        frame = "{s} is holding {h}" if kind(subject) == "person" else "{s} is touching {h}"
    elif hazard == "gambling":
        frame = "{s} is gambling"
    else:
        frame = _RELATION[kind(hazard)]
    return frame.format(s=one(subject), h=_ABSTRACT.get(hazard, one(hazard)))


def doing(subject, hazard):
    """The same behind a noun: "holding a weapon"."""
    if kind(hazard) == "weapon":
        frame = "holding {h}" if kind(subject) == "person" else "touching {h}"
    else:
        frame = "gambling" if hazard == "gambling" else _NOUN[kind(hazard)]
    return frame.format(h=_ABSTRACT.get(hazard, one(hazard)))


def central(word):
    """What a detector looks for when a statement turns on this word."""
    return {"gambling": "gambling", "alcohol": "alcohol", "drug": "drug"}.get(word, word)


def check():
    """Stops if a statement is none of those that the judge was trained on."""
    for word in WORDS:
        assert seen(word) in CATALOGUE, seen(word)
    for subject in SUBJECTS:
        for hazard in HAZARDS:
            assert touching(subject, hazard) in CATALOGUE, touching(subject, hazard)


check()
assert CHILDREN and OF_CATEGORY

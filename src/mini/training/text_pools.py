"""Templates of everyday prose for `text_prose.py`, which explains the notation.

`{x}` is a noun phrase with its article, `{b}` the same without; `{be} {has} {does} {s} {ies}` agree with it.
"""

PRONOUNS = {"anybody", "anyone", "somebody", "someone"}
PLURALS = {"people", "folks", "humans", "persons", "police", "cattle", "poultry", "dice", "dope and pills", "folk", "livestock"}
NOBODY = ["nobody", "no one", "nobody", "no person", "no human", "no human being", "not a single person", "no-one", "none", "no people",
          "noone", "no individual", "no persons"]
ADJECTIVES = """big, small, huge, tiny, old, new, real, fake, toy, cute, ugly, red, black, white, shiny, large, little, cartoon, emoji,
    single, visible, beautiful, strange, dirty, modern, wild, famous, local, happy, sad, angry, smiling, unknown, recognisable,
    realistic, painted, young-looking, colourful, expensive, cheap, giant, dark, bright, plain, ordinary, foreign, drawn""".replace("\n", " ")
ADJECTIVES = [a.strip() for a in ADJECTIVES.split(",")]


def _lines(text):
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


def _items(text):
    """Items between semicolons."""
    return [item.strip() for item in " ".join(text.split()).split(";") if item.strip()]


POOLS = {
    "img": _items("image; picture; photo; pic; image; picture; photograph; shot; illustration; frame; scene; post; drawing; visual; upload; render; artwork; output; thumbnail; result; generated image; snapshot; motif; graphic"),
    "imgs": _items("""images; pictures; photos; pics; images; pictures; photographs; shots; illustrations; frames; scenes; posts; drawings; visuals; uploads; renders; artworks; outputs; results; generated images; snapshots; motifs; graphics; submissions;
        our pictures; our images; image files; visuals; ads; adverts; depictions; thumbnails; advertisements; representations; stock photos"""),
    "mustnot": _items("""must not; should not; may not; shall not; cannot; can't; mustn't; shouldn't; must never; should never; may never; ought not to; can not; must on no account; is never to; is not to; are not to; won't; will not; shall never; should
        under no circumstances; may in no case; can never; could not; need not; must in no case; don't get to; dont; must under no circumstances; better not; had better not; isn't to; are never to; must not ever"""),
    "must": _items("must; should; has to; have to; shall; is to; are to; needs to; ought to; need to; got to; will; must always"),
    "show": _items("show; depict; contain; feature; display; include; portray; present; have; show; show us; picture; illustrate; publish; render; draw; exhibit; involve; have in it; bring; use; paint; hold; represent; visualise"),
    "shown": _items("""shown; depicted; displayed; visible; seen; portrayed; pictured; featured; presented; included; shown; in the picture; in the image; to be seen; represented; illustrated; published; in it; in our <imgs>; drawn; generated; on display; uploaded; posted;
        in any <img>; present; in the frame; in a picture; used; rendered; on show; admitted; in sight; part of the picture; detectable; discernible; recognisable; in view; photographed"""),
    "showing": _items("""showing; depicting; of; with; containing; featuring; displaying; that show; which show; that depict; that contain; of; with; which depict; including; portraying; that feature; which contain; where we see; presenting; that include;
        in which we see; where you see; in which one can see; having; with the motif of; that portray; in which there {is_are}; where there {is_are}; which feature""".replace(" {is_are}", "'s")),
    "shows": _items("shows; depicts; contains; features; displays; includes; portrays; has; shows; presents; pictures; involves; has in it; reveals; holds; illustrates"),
    "bad": _items("""forbidden; prohibited; banned; not allowed; not permitted; unacceptable; not acceptable; not OK; not okay; off limits; taboo; unwanted; undesired; not welcome; unwelcome; a no-go; a no; out; out of the question; not wanted; not tolerated;
        inappropriate; not suitable; unsuitable; against the rules; against our rules; to be avoided; to be rejected; to be blocked; verboten; disallowed; not desired; undesirable; ruled out; off the table; not an option; excluded; not appropriate; a taboo;
        an absolute no-go; strictly forbidden; strictly prohibited; illegal here; not for us; not our thing; not fine; wrong; bad; never OK; never allowed; barred; impermissible; inadmissible; to be removed; to be refused; to be deleted; not funny; no good;
        a violation; in breach of our guidelines; against policy; not admissible; a dealbreaker; refused; rejected; blocked; deleted; removed; not cool; not ok; outlawed; no joke; none of our business; not for our audience; out of bounds; a bad idea; not in line with our values;
        not what we want; too much for us; nothing for us; grounds for rejection; filtered out; turned down; not to be tolerated; not accepted; vetoed; objectionable; beyond the pale; silly; a reason to reject; not our style; not in order; undesired here; unfit for us; censored;
        considered unsafe; unsafe; deemed inappropriate; a sign of bad taste; not allowed, full stop; a strict no; a nono; a no no; not on"""),
    "reject": _items("""reject; block; remove; delete; filter out; hide; refuse; flag; take down; ban; turn down; discard; avoid; leave out; skip; drop; suppress; withhold; exclude; weed out; throw out; keep out; get rid of; report; stop; censor; screen out; sort out; prevent; decline;
        ditch; dismiss; prohibit; forbid; omit; don't accept; do not release; don't publish; do not show; do not let through; never release; catch; bin; mark as unsafe; disallow; eliminate; scrap; not release; strike out; rule out; cut out; outlaw; veto"""),
    "rejected": _items("""rejected; blocked; removed; deleted; filtered out; hidden; refused; flagged; taken down; banned; turned down; discarded; avoided; left out; dropped; suppressed; withheld; excluded; thrown out; kept out; reported; stopped; censored; declined; prevented; dismissed; binned;
        marked as unsafe; eliminated; scrapped; thrown away; sorted out; sent back; weeded out; ruled out; removed at once; pulled; outlawed"""),
    "where": _items("""here; on this site; in our app; with us; on our platform; on our page; in our feed; in our pictures; in our images; in the picture; in the image; in any picture; in pictures; in ads; in our ads; in the campaign; in the catalogue; in this magazine; in our newsletter; on our website; in our shop;
        at our school; in our brochures; in this project; in the gallery; in our brand pictures; in the results; in images; on our channel; in this forum; in our stories; in the shot; in the frame; on any of our pages; in the app; in our marketing; in any image; anywhere in the picture; in our community; on the platform; in this house; anywhere;
        in my pictures; in the output; in posts; on the site; in generated images; in this game"""),
    "tail": _items("""please; pls; thanks; thank you; at all; ever; whatsoever; under any circumstances; in any way; full stop; period; at any time; of any kind; in any form; no matter what; without exception; for any reason; at all times; if possible; in general; as a rule; not even partly; not even in the background; not even once; ok?; okay?; as always; as a matter of principle;
        in any case; that's an order; by law; in the slightest; under no circumstances; for sure; no exceptions; end of story; no discussion; in no way; big or small; at any price; as far as possible; even as a joke; not even as a cartoon; at least for now; I think; in my opinion; from now on; as agreed; thx; plz; I guess; for the time being; of whatever sort; or so; by no means;
        in whatever style; as per our policy; be it large or small; neither big nor small; in plain view; or anything like that"""),
    "audience": _items("""children; kids; our audience; our readers; our customers; our users; young people; pupils; students; families; parents; small children; women; old people; the community; our clients; patients; minors; schools; sensitive people; animal lovers; people; the public; everybody; our sponsors; advertisers; the little ones; my daughter; my son; my grandmother; my boss;
        our members; teenagers; the neighbours; guests; teachers; our partners; the jury; viewers; veterans; refugees; victims; dog owners; cat lovers; vegetarians; the police; the authorities; the management; subscribers; believers; investors; visitors; our staff; boys and girls; babies; elderly people; men; toddlers; recovering addicts; the team; doctors"""),
    "org": _items("""a school; a school app; a kindergarten; a bank; a hospital; a church; a zoo; a newspaper; a children's service; a family site; a family platform; a toy shop; a museum; a library; a pharmacy; an insurance company; a charity; a sports club; a public authority; a travel agency; a supermarket; a restaurant; a hotel; a dating site; a game studio; a publisher; a youth club; a TV channel;
        an animal shelter; a fish shop; a health insurer; a car dealer; a brewery; a police department; a fire brigade; a nursery; a baby store; a winery; a furniture store; a pet shop; a book club; a city council; a tobacco-free campaign; a women's magazine; a retirement home; a daycare; a bakery; a university; a music school; a cycling club; a platform for pupils; a bathroom outfitter;
        a community of parents; a casino-free town; a weapons museum; a self-help group; an app for kids; a bed store; a farm"""),
    "no_reason": _items("in it; anywhere; inside; there; around; in sight; in view; to be seen; in the picture; please; thanks; pls; here; in the image; visible; on it; whatsoever; at all; allowed"),
}

POOLS["noun"] = _items("""business; funeral; weather; garden; coffee; paper; budget; winter; summer; election; museum; ticket; printer; carpet; kitchen; weekend; holiday; history; poem; theatre; opera; market; engine; bridge; tunnel; airport; journey; luggage; soup; cheese; sugar; pepper; bread; butter; honey;
    factory; office; contract; insurance; licence; lawyer; judge; doctor; dentist; nurse; patient; teacher; student; lesson; exam; school; college; science; physics; music; song; dance; concert; stage; film; camera crew; newspaper; article; headline; editor; reader; writer; library; letter; stamp; parcel; address; village; city; country; island; ocean;
    wave; storm; thunder; snow; ice; desert; forest; leaf; root; seed; harvest; farmer; tractor; field; fence; gate; roof; wall; floor; ceiling; corner; shelf; drawer; mirror; towel; soap; brush; needlework; thread; cloth; jacket; trousers; button; pocket; wallet; coin; bank account; credit; debt; tax; price; discount; sale; customer; brand; logo; slogan; campaign;
    audience; community; committee; council; mayor; minister; parliament; law; court; police report; witness; victim; crime; prison; peace; war; army; soldier; border; passport; visa; tourist; guide; hotel; restaurant; menu; waiter; cook; recipe; dinner; lunch; breakfast; birthday; wedding; grief; anniversary; gift; toy; game; puzzle; sport; team; trainer; match; medal; health;
    medicine; hospital; therapy; diet; sleep; dream; memory; feeling; fear; anger; joy; trust; faith; religion; church; mosque; temple; prayer; phobia; allergy; rival; competitor; partner; sponsor; donor; volunteer; charity; terms of service; style guide; deadline; material; delivery; agency; portfolio; brochure; poster; calendar; magazine; website; server; database; software; update""")
POOLS["quality"] = _items("""squeamish; sensitive; careful; strict; serious; proud; tired; nervous; happy; unhappy; religious; vegetarian; allergic; conservative; modern; old-fashioned; busy; young; local; international; famous; small; independent; neutral; responsible; liable; insured; certified; grieving; afraid; angry; delicate; picky; traditional; shy; polite; impatient; superstitious; honest; ill;
    healthy; broke; rich; curious; fussy; easily frightened; peaceful; friendly; professional; cautious; worried; sceptical; exhausted; embarrassed; offended""")
POOLS["aside"] = _items("""I don't care what else is in there; whatever you do; the rest is up to you; everything else is fine; everything else is allowed; anything else goes; do what you like otherwise; apart from that you are free; it goes without saying; as everybody knows; needless to say; you know what I mean; you know the drill; dear me; oh dear; for heaven's sake; goodness; I beg you; trust me; believe me;
    if I see one more I'm quitting; I would be grateful; we would be grateful; hopefully that's clear; this should be clear; not even a small one; let that be understood; this has been so since 2019; this has been the rule since last year; that's final; sorry; sorry about that; I'm afraid; frankly; to put it bluntly; long story short; simple as that; you name it; we have seen enough of it; it is what it is;
    everybody agrees; nobody will miss it; the fewer the better; less is more; this is not negotiable; this is important; mark my words; let's be clear; let me be clear; let's be honest; as you can imagine""")

SHORT_FRAMES = _lines("""
no {b}
no {b}
no {b}
no {b} <no_reason>
no {b} <no_reason>
no {b}(,| -|) (please|pls|thanks|thank you|ever)
please no {b}
please, no {b}
pls no {b}
NO {b}
{x}: (no|never|no way|not here|reject|delete|block|forbidden|banned|out|remove)
{x}? (No|No thanks|No way|Never|Not with us|Not here|Forbidden|No, thank you|Please don't|Out|Rejected|Block it|Not on our site|Nope)
never {x}
never any {b}
without {x}
not {x}
{x} - no
{x} = (forbidden|no|reject|bad|block)
zero {b}
simply no {b}
absolutely no {b}
strictly no {b}
definitely no {b}
just no {b}
generally no {b}
also no {b}
{x} {be} <bad>
{x} {be} <bad>
{x} {be} <bad> <where>
{x} {be} (absolutely|strictly|totally|completely|simply|generally|definitely|really|also) <bad>
{x} not allowed
{x} forbidden
{x} prohibited
{x}, no
avoid {x}
ban {x}
<reject> {x}
zero tolerance for {x}
{x} (must|should|has to|have to|needs to) go
nothing with {x}
nothing with {x} in it
nothing showing {x}
nothing that <shows> {x}
don't <show> {x}
don't show {x}
do not show {x}
never show {x}
do not <show> {x}
never <show> {x}
show no {b}
we <show> no {b}
we don't want {x}
I don't want {x}
{x} never
down with {x}
{x} off
(away|out) with {x}
stop {x}
lose {x}
""")
FRAMES = _lines("""
(the|an|any|our|this|each|every) <img> <mustnot> <show> {x}
(the|our|) <imgs> <mustnot> <show> {x}
<imgs> <showing> {x} are <bad>
<imgs> <showing> {x} are <bad>
<imgs> <showing> {x} <must> be <rejected>
<imgs> <showing> {x} <must> be <rejected>
<imgs> <showing> {x} <mustnot> be (shown|published|released|uploaded|posted|accepted|used|generated|created|shared|allowed|approved|seen|let through|passed|made|printed)
(any|every|each) <img> <showing> {x} <must> be <rejected>
(any|every|each|an|the) <img> <showing> {x} is <bad>
(an|the|any) <img> (with|of|showing|containing) {x} (will be|gets|is) <rejected>
(all|any) <imgs> <showing> {x} (will be|get|are) <rejected>
{x} <mustnot> be <shown>
{x} <mustnot> be <shown>
{x} <mustnot> be <shown> <where>
{x} <mustnot> (appear|turn up|show up|occur|feature|pop up|be there|come up|crop up|be around|exist|be found|slip in|be used|come into view|be included) (<where>|)
{x} <must> be <rejected>
{x} <must> (stay|remain|be kept|be left) (out|away|out of it|out of the <img>|out of our <imgs>|invisible|off our site|outside|hidden|out of sight|off the page)
{x} <must> be absent( from (the|our|all) (<imgs>)|)
{x} (will|shall) be <rejected>
{x} (get{s}|{be}) <rejected>
{x} {be} <bad> because <why>
there (must|should|may|shall) (not be|be no) {b} <where>
there (must|should|may|shall|can) be no {b}
there (must|should|may|shall|can) be no {b} <no_reason>
there (must not|should not|may not|shouldn't|mustn't) be {x} (in the <img>|in it|in any <img>|<where>|anywhere)
there (are|is) to be no {b} <where>
it is (forbidden|prohibited|banned|not allowed|not permitted|not OK|unacceptable|illegal|against the rules|not acceptable|strictly forbidden|strictly prohibited|wrong|not okay|inappropriate|not right|inadmissible) to (show|depict|display|upload|post|publish|include|portray|show us|picture|present|generate|draw|use|share|have) {x}
it's (forbidden|prohibited|banned|not allowed|not permitted|not OK|unacceptable|illegal|against the rules|not acceptable|wrong|not okay|inappropriate|not nice) to (show|depict|display|upload|post|publish|include|portray|picture|present|generate|draw|share|have) {x}
(showing|depicting|displaying|uploading|posting|publishing|portraying|the display of|the depiction of|depictions of|the representation of|the portrayal of|any depiction of|adverts for|any sign of|references to|the sight of|any display of|photos of|pictures of|any hint of|the presence of|drawings of) {x} (is|are) <bad>
(depictions|displays|pictures|photos|images|drawings|portrayals|representations|adverts) (of|with) {x} (must|should|have to|need to|are to|shall) be <rejected>
we (don't|do not|will not|won't|never|cannot|can't|must not|shall not|should not|refuse to|would rather not|wouldn't|prefer not to|do not want to|don't want to|don't wish to|do not like to|don't like to) (show|see|publish|depict|display|have|accept|allow|want|tolerate|print|feature|include|permit|use|get|post|support|show people|let in|host) {x} (<where>|)
we (don't|do not|will not|won't|never|cannot|can't|must not) (show|see|publish|depict|display|have|accept|allow|want|tolerate|print|feature|include|permit|use) {x}
we (do not|don't) (want|need|like|tolerate|accept|allow|permit) (any |)(<imgs> <showing>|pictures of|images of|photos of|photos with|images with) {x}
we do not tolerate {x}
we (do not|don't) want {x} to be <shown>
we (do not|don't) want to see {x}
we (do not|don't) want to see {x} <where>
we (want|would like|ask|need) (you |)(to (leave|keep) out|no) {x}
we (would|'d) like (you |)to (leave out|avoid|exclude|do without|skip|omit) {x}
we'd (prefer|like|rather have) (it without|images without|pictures without|no) {x}
we (refuse|reject|ban|block|delete|remove|forbid|prohibit|exclude|disallow|filter|hate|dislike|oppose) {x}
we (have|had) (decided|agreed) (against|not to show|to ban|to do without) {x}
I (don't|do not|never|really don't|would not like to|wouldn't like to|don't ever) want to (see|have|show|find|get) {x} (<where>|)
I (hate|dislike|don't like|can't stand|do not want|object to|am against|don't need|do not like) (<imgs> of|pictures of|seeing|photos of|) {x}
I'd (rather|prefer to|sooner) (not see|see no|avoid|not have|do without) {x}
I (would|'d) (prefer|like|appreciate) (it |)(if there (was|were) no|pictures without|no) {x}
(please|kindly|pls) (do not|don't|never) <show> {x}
(please|kindly|pls|) (do not|don't|never|dont) (show|draw|generate|upload|post|include|publish|create|share|make|send|use|put in|paint|render|add|submit|give us|produce|allow|accept|approve|release|let through|tolerate) (pictures of|images of|photos of|pics of|anything with|images with|photos with|) {x} (<where>|)
(don't|do not) (ever |)(let|allow) {x} (slip through|through|in|pass|into the <imgs>|onto our site|to be <shown>|to appear|appear|get through|make it onto the page)
(please|kindly|pls|) <reject> {x}
(please|kindly|pls|) <reject> <imgs> <showing> {x}
(please|kindly|) <reject> (any|every|all|everything|anything) (<img>|<imgs>|) (with|that <shows>|showing|containing|of|in which there is) {x}
<reject> everything (that <shows>|with|showing|containing|that has) {x}
(anything|everything|whatever|all that) (that |)(<shows>) {x} (is <bad>|gets <rejected>|must be <rejected>|has to go|will be <rejected>|should be <rejected>)
(please |)(make sure|ensure|see to it|take care|check|be sure) (that |)(no {b} {be} <shown>|there (is|are) no {b}|there (is|are) no {b} <where>|{x} {be} not <shown>|{x} <mustnot> be <shown>|we (don't|never) see {x}|{x} do not (appear|show up))
(keep|leave) {x} (out|out of it|out of the <imgs>|out of this|away|off the site|out of our <imgs>|out of the <img>|off our page|out of all <imgs>|off|out of sight|out of here)
(please |)keep (the <imgs>|the <img>|our <imgs>|it|everything|our site|our pages|the feed|the app|the catalogue) (free of|free from|clear of|clean of|without) {x}
(the <imgs>|the <img>|our <imgs>|it|everything|our site|the catalogue|our feed|the gallery|the magazine) (must|should|has to|shall|have to|needs to) be (free of|free from|clear of|without|devoid of) {x}
(the <imgs>|the <img>|our <imgs>|) (must|should|has to|have to) (do|get by|make do|be|come) without {x}
{x} (has|have) no (place|business|right to be|reason to be) (<where>|here|in our <imgs>|on our site)
{x} {does} not belong (<where>|here|in our <imgs>|on our site|in (a|the) <img>|there)
{x} (don't|do not|doesn't|does not) belong (<where>|here|in our <imgs>)
there is no (place|room|space) for {x} (<where>|)
there's no (place|room|space) for {x} (<where>|)
{x} (has|have) to (go|stay out|be left out|disappear|be removed|leave|be kept away)
(nobody|no one|none of us|no customer|no reader|no parent) (wants|needs|likes|should have) to see {x} (<where>|)
(nobody|no one) (may|should|must|is allowed to|can) (see|show|upload|post|publish|draw|share|find|depict) {x} (<where>|)
(users|you|authors|members|people|editors|artists|contributors|the model|uploaders|the generator|everybody) (must not|may not|should not|cannot|can't|are not allowed to|mustn't|shouldn't|must never|are not to|have to avoid|are asked not to|is not allowed to|must avoid to) (show|upload|post|publish|draw|share|depict|use|include|send|create|generate|submit) (pictures of|images of|photos of|photographs of|pics of|) {x}
you (may|can|must|should|are) not (allowed to |permitted to |)(show|upload|post|publish|draw|share|depict|use|include) {x}
(a|the|any) <img> is (unsafe|bad|a violation|forbidden|rejected|not ok|wrong|not allowed|inappropriate|to be rejected|unacceptable) (if|when|as soon as|once) (it <shows>|there (is|are)|we see|it has|one can see|you can see) {x}
if (there is|there are|there's|you see|we see|one can see|I see|it <shows>|a <img> <shows>|the <img> <shows>|you spot|you find|somebody posts) {x}(,|) (reject it|<reject> it|block it|delete it|it is <bad>|it must be <rejected>|the <img> is <bad>|the <img> must be <rejected>|don't show it|that's a violation|remove the <img>|then no|refuse the <img>|it is out|then it is <bad>|throw it away|flag it)
(reject|block|remove|delete|refuse|hide|flag) (it|the <img>|an <img>|any <img>|a <img>) (if|when|as soon as|once|whenever) (there is|there are|there's|you see|we see|one can see|it <shows>|it contains|it has) {x}
(whoever|anyone who|users who|everybody who|people who) (shows|show|posts|post|uploads|upload|draws|publishes) {x} (gets|get|will be|is|are) (rejected|banned|blocked|removed|deleted|reported|refused)
(it must not happen that|it should not happen that|it can't be that|it is unacceptable that|we can't have that|I don't want that|we don't want that|it may not be that) {x} {be} <shown>
{x} {be} (a|one) (taboo|red line|problem|no-go|reason for rejection) (for us|<where>|in our <imgs>|)
{x} {be} not (for us|something we show|what we stand for|part of our world|part of our brand|our thing|what we want to see|something for our <imgs>|something we want to see|acceptable to us|for (children|kids)|welcome <where>)
{x} upset{s} <audience>, so (leave {them} out|please no {b}|keep {them} out|don't show {them}|no {b}|<reject> {them})
{x} (look{s}|seem{s}|feel{s}) (boring|kitschy|cheap|silly|stupid|ugly|bad|wrong|dull|out of place|odd|old-fashioned|tacky|unprofessional|childish|too much), (please |so |)(avoid {them}|leave {them} out|we refuse {them}|don't use {them}|keep {them} out|no {b}|<reject> {them}|skip {them})
{x} {be} (bad luck|bad for us|not part of our (brand|target group|campaign|world)|a problem|boring|dangerous|trouble|unhealthy|a bad example|the competition|risky|of no use|annoying|too private|a cliché), (please |so |)(avoid {them}|leave {them} out|don't include {them}|we don't show {them}|keep {them} out|no {b}|don't show {them}|<reject> {them})
(our|the|my) (partner|client|boss|customer|zoo partner|sponsor|editor|lawyer|teacher|team|legal department|landlord|customers|parents|brand guide|style guide|policy|law|readers|chief) (asked|asks|wants|told|ask|requires|want|demands|require|says|instructed) us (to|that we) (keep {x} out|avoid {x}|leave out {x}|not show {x}|ban {x}|remove {x}|leave {x} out of all <imgs>|do without {x})
(our|the) (policy|brand guide|style guide|rules|guidelines|house rules|law|terms|terms of use) (forbid|forbids|prohibit|prohibits|ban|bans|rule out|rules out|do not allow|does not allow|disallow|exclude|excludes) {x}
{x} (<must>) (never|not) (make it|get|find their way|find its way) (onto|into|on|in) (the page|our <imgs>|our site|the <imgs>|the feed|print|our app)
the (use|display|presence|depiction|sight|inclusion|publication) of {x} is <bad>
{x}: (we|I) (don't|do not) (want|like|need|accept|show|allow) (that|this|them|it)
{x} {be} something (we|I) (don't|do not|never|won't) (want|like|need|accept|show|allow|tolerate|wish to see|want to see)
(as soon as|when|whenever|once) {x} (appear{s}|{be} visible|can be seen|{be} <shown>|show{s} up), (reject|block|delete|it is a violation|the <img> is <bad>|<reject> the <img>|it gets <rejected>|that's a no)
(what|the things) we (don't|do not) want (to see|) (is|are)?: {x}
what we (don't|do not) want to see: {x}
forbidden: {x}
banned: {x}
not allowed: {x}
prohibited <where>: {x}
(blocked|rejected|unwanted|off limits|undesired|out): {x}
(spare us|spare me|spare <audience>|protect <audience> from|save us from|shield <audience> from) {x}
(I|we) could do without {x}
(say|we say) no to {x}
(beware of|watch out for|look out for|mind) {x} and <reject> (it|them)
(for the love of God|honestly|seriously|come on|guys|folks|hey), no {b}
{x} - (we|I) (don't|do not|really don't|never) (want|need|allow|show) (that|it|them|those)
{x} in (an|a|the|any|our) <img> (is|are) <bad>
{x} on (an|a|the|any|our) (<img>) (is|are) <bad>
(not|never|nowhere) (should|may|must|shall) {x} (be <shown>|appear|be visible|turn up)
in no (case|way|event|<img>) (should|may|must|shall) {x} (be <shown>|appear|be visible|turn up|occur)
under no circumstances (should|may|must|shall|can) {x} (be <shown>|appear|be visible|turn up|be published)
at no time (should|may|must|shall|can) {x} (be <shown>|appear|be visible|turn up)
<img> with {x}? (No|Reject|Out|Never|Not here|Delete it|Block it|Not with us)
(the |)(combination|motif|topic|subject|theme|scene|idea) of {x} is <bad>
{x} (make{s}|give{s}|cause{s}) (us trouble|us complaints|a bad impression|fun of animals|people angry|problems|people uncomfortable|complaints), so (block it|no {b}|<reject> {them}|we refuse {them}|don't show {them})
{x} (make{s}|give{s}|cause{s}|scare{s}|frighten{s}|hurt{s}|offend{s}|bother{s}) (us|<audience>|complaints|trouble) and {be} <bad>
{x} get{s} us complaints, so <reject> (it|them)
{x} damage{s} (the|our) (reputation|brand|image) (of the force |of our house |)and {be} <bad>
nothing (like|such as) {x}
(filter|sort|screen|weed|throw|take|leave|cut|edit) {x} out
(filter|sort|screen|weed|throw|take|leave|cut|edit) out {x}
(instances|cases|occurrences|signs|traces|examples) of {x} (are|must be|should be) (<bad>|<rejected>)
{x} {be} none of (anybody|anyone|our|your)'s business
{x} {be} (illegal|immoral|unlawful|bad|private|harmful|unhealthy|dangerous|against the law) and (may|must|should|can|shall) (therefore|thus|hence|so|accordingly) not be <shown>
(smoking|they|it) aside, {x} {be} <bad>
(thou shalt not|you shall not) (show|depict|display) {x}
who (needs|wants) {x}? (Not us|Nobody|We don't|Not our readers|Leave it out)
(why|how) would anyone (post|show|draw|want) {x}? (Not here|Reject|No|Block it)
""")
# Sentences are left without a capital and a full stop: the hand that writes adds them.
CLAUSE_FRAMES = _lines("""
if {c}(,|) (reject it|<reject> the <img>|block it|delete it|the <img> is <bad>|the <img> must be <rejected>|that's a violation|then no|it is out|it must be <rejected>|we don't want it|do not show the <img>|block the picture)
(reject|block|remove|delete|refuse|hide|flag|<reject>) (the <img>|it|any <img>|a <img>|every <img>|<imgs>) (if|when|as soon as|once|whenever|where|in which) {c}
no <img> (in which|where|on which|that shows how|that shows that) {c}
no <imgs> (in which|where|on which|that show how) {c}
<imgs> (in which|where|on which|that show how|showing that) {c} are <bad>
<imgs> (in which|where|on which|that show how) {c} <must> be <rejected>
(a|any|an|the|every) <img> (in which|where|on which|that shows how) {c} is <bad>
(a|any|an|the|every) <img> (in which|where|on which) {c} <must> be <rejected>
(a|the|an|any) <img> is (unsafe|bad|a violation|forbidden|rejected|not ok|wrong|not allowed|inappropriate) (if|when|as soon as|once|whenever|where) {c}
it (must|should|may|can) (not|never) (happen|be|occur|be the case|be shown|be seen) that {c}
it (must|should|may|can) (not|never) (happen|be|occur|be the case|be shown|be seen) that {c} <where>
(we|I) (don't|do not|never|won't) want (to see |)that {c}
(we|I) (don't|do not|never) (show|want to see|publish|accept|allow|depict) (how|that|<imgs> where|<imgs> in which) {c}
it is (unacceptable|forbidden|prohibited|not allowed|not OK|a violation|wrong|not permitted|bad) (if|when|that) {c}
it's (unacceptable|forbidden|not allowed|not OK|a violation|wrong|not permitted|bad|a no) (if|when|that) {c}
there (must|should|may|shall) (not be (a|any)|be no) (<img>|scene|picture) (where|in which) {c}
(make sure|ensure|see to it|take care) that (it is never shown that|there is no <img> where|nowhere) {c}
(as soon as|when|whenever|once|where) {c}, (reject|block|delete|it is a violation|the <img> is <bad>|<reject> the <img>|it gets <rejected>|that's a no|it's over)
(avoid|prevent|exclude|rule out|no scenes|avoid scenes|skip scenes|avoid <imgs>|don't show) (that|where|in which|how) {c}
(scenes|situations|moments|cases|instances) (where|in which|when) {c} (are|must be|should be) (<bad>|<rejected>)
(don't|do not|never) (show|depict|draw|generate|publish|let it happen|allow) (that|how|<imgs> where|scenes where|a scene in which) {c}
in no <img> (may|should|must|shall) it be <shown> (that|how) {c}
{c}: (no|reject|forbidden|never|not allowed|delete|block)
{c}? (No|Reject|Not here|Never|Not with us|Delete it|Block it|Forbidden)
""")
FRAMES += _lines("""
(everything|anything) (is fine|is OK|goes|is allowed|is okay|may be shown) (as long as|if|provided|so long as|when) (there is|there are|it has|we see|it <shows>|you show) no {b}
(I don't care|I don't mind|it doesn't matter|never mind) what (else |)(is in there|it shows|you show|is shown|you draw) as long as (there is|there are|it has|I see) no {b}
(just |)as long as (there is|there are|I see|we see) no {b}(, it's fine|, it is OK|, I'm happy|, anything goes)
(<imgs>|everything) without {b}, please
(<imgs>|everything) but {x}
anything but {x}
(we'd|we would|I'd|I would|you'd|they'd) (be sued|be in trouble|lose our licence|get complaints|be angry|lose customers|be shocked|be sad|have a problem) if (somebody|someone|anyone|anybody|a customer|people|a parent) (found|saw|discovered|spotted|noticed|came across|detected) {x} (in one of our <imgs>|in our <imgs>|<where>|)
(somebody|someone|anyone|nobody|no one) (should|must|may|can) (ever |)(find|see|spot|discover|come across) {x} (in one of our <imgs>|<where>|)
(nobody|no one) (should|must|may|can) (ever |)(find|see|spot|discover|come across) {x} (in one of our <imgs>|<where>|)
(steer|stay|keep) (clear|away) (of|from) {x}
(I|we) (would be|'d be|am|are) grateful if {x} (did not|didn't|do not|don't) (occur|appear|turn up|show up) (<where>|in the <noun>|)
(I|we) (would|'d) (be happy|be glad|prefer it|appreciate it|like it|love it) if (there were no {b}|you left out {x}|{x} were left out|you showed no {b}|we saw no {b})
{x} (have|has) been (banned|forbidden|prohibited|removed|out|ruled out|taboo) (<where> |from our <imgs> |)(since 2019|since last year|for years|for a while|for ever|now|by law|)
{x} must be (retouched away|cut out|edited out|painted over|quarantined|erased|cropped out|blurred)
<imgs> (<showing>|that include|that involve) {x} (have|need|are) to be (quarantined|removed|blocked|deleted|destroyed|sorted out|held back)
imagery (that includes|with|of|including) {x} is <bad>
the sight of {x} is not what (our customers|we|<audience>) (expect|want|need)
(never|don't) let me (see|catch) {x}
show me (no {b}|nothing with {x})
(keep|take|get) {x} off (everything|our <imgs>|the site|the page|our covers|our posters)
(let's|let us) (not have|not show|leave out|do without|avoid|skip|have no {b} and no|not see) {x}
{x} (stay|stays|go|goes) out
{x} (is|are) (too (intimate|sad|brutal|loud|private|political|much|expensive) for|not something for|not right for|wrong for) (our (catalogue|magazine|app|readers|site|taste)|us|<audience>)
{x}, (dear me|oh dear|good grief|heavens|really|sorry|honestly), no
{x}: (a sad sight|something|a thing|a picture|a topic) we (want to|would like to|have to|must) (spare <audience>|avoid|leave out)
a <img> (breaks|violates|is against|offends against|infringes) the (rule|rules|policy|guidelines|law) (when|if|as soon as|once) (it <shows>|there is|there are|you see|we see) {x}
{x} (violate{s}|break{s}|infringe{s}) (our|the) (rules|policy|guidelines|terms|code of conduct)
(it goes without saying that|needless to say,|of course|obviously,|clearly,) {x} <mustnot> be <shown>
""")
NO_FRAMES = _lines("""
{no}
{no}
{no} please
{no} <where>
please {no}
{no} <no_reason>
{neither}
{neither} <where>
{neither} (may|must|should|shall) (be <shown>|appear|be visible|turn up)
(we|I) (want|show|allow|accept|like|tolerate|publish) {neither}
(show|allow|draw|accept|include|publish) {neither}
there (must|should|may|shall) be {no}
there (must|should|may|shall) be {neither} <where>
(we want|we show|show|we have|I want) {no}
the <img> (may|must|should|shall) <show> {neither}
so {neither}
so {no}
""")
NOBODY_FRAMES = _lines("""
(show|give|let) me (see |){nobody} (who is {going}|{going}|who {third})
(let's|let us) (show|have|see) {nobody} {going}
you (can't|cannot|must not|may not) have (anyone|a person|people|somebody|anybody) {going}
(let's|let us|we would rather|I'd rather) not have (anyone|anybody|somebody|people|a person) {going}
(anyone|anybody|whoever is|people) (seen|shown|caught|) {going} (gets|will be|is) (cut|removed|edited out|deleted|rejected) (from the <img>|from the film|)
there (shall|must|should|may) not be (any human|anyone|a person|anybody|people) who (is {going}|{third})
{nobody} (may|should|must|shall|can|is allowed to|is permitted to|is supposed to|gets to|ought to|has to|will|is to|may ever|should ever|needs to) {base}
{nobody} (may|should|must|shall|can|is allowed to|is to|is supposed to|ought to) {base} <where>
{nobody} (may|should|must|shall|can|is to|is allowed to) be (shown|seen|depicted|pictured|portrayed|displayed|visible|presented|found|caught|photographed|drawn|featured) {going}
{nobody} (may|should|must|shall|can|is to) be {going}
{nobody} {third} <where>
{nobody} {third}
{nobody} {going}
{nobody} {going} <where>
{nobody} {going}(, please| please|, ever|, thanks| pls|!)
(we|I) (want|show|publish|wish|like) {nobody} (to {base}|{going}|who {third})
(make sure|ensure|see to it|take care|check) that {nobody} {third}
(make sure|ensure|see to it|take care|check) that {nobody} is (shown|seen|depicted|pictured) {going}
(show|depict|draw|generate|publish|display) {nobody} (who {third}|{going}|that {third})
there (must|should|may|shall|is to) be {nobody} (who {third}|{going}|that {third})
there (must|should|may|shall) be {nobody} {going} <where>
in our <imgs>(,|) {nobody} {third}
""")
MUST_NOT_FRAMES = _lines("""
you (can't|cannot|must not|may not) have {x} {going}
(let's|let us|we would rather|I'd rather) not have {x} {going}
never let me (see|catch) {x} {going}
under no circumstances (do|may|should|will) we (depict|show|see|publish) {x} {going}
(we|I) object to <imgs> (in which|where) {x} {base}
there (shall|must|should|may) not be {x} {going}
{x} {going}: (a sad sight|something|a thing) we (want to|would like to|have to|must) (spare <audience>|avoid|leave out)
it goes without saying that {x} <mustnot> be (shown|seen|depicted) {going}
a <img> (breaks|violates) the (rule|rules|policy) (when|if|as soon as|once) {x} {base}
{x} (who|that) {base} (need|needs|have|has) to be (taken out|removed|cut|deleted)
{x} <mustnot> {base}
{x} <mustnot> {base}
{x} <mustnot> {base} <where>
{x} <mustnot> be {going}
{x} <mustnot> be (shown|seen|depicted|pictured|portrayed|displayed|visible|presented|found|caught|photographed|drawn|featured) {going}
{x} <mustnot> be (shown|seen|depicted|pictured|portrayed|displayed|presented|photographed|drawn|featured) (while|when|as|whilst) {going}
{x} (is|are|{be}) not (allowed|permitted|supposed|meant|entitled|expected) to {base}
{x} {be} (forbidden|prohibited) (to {base}|from {going})
{x} {be} not to {base}
{x} {going}(,| -|:|) (no|never|no way|not here|no thanks|not with us|not allowed|forbidden|please no)
{x} {going}? (No|No thanks|No way|Never|Not with us|Not here|Forbidden|Please don't|Out|Block it|Nope)
{x} {going} {be} <bad>
{x} {going} (is|are) <bad>
{x} {going} (is|are) <bad> <where>
(showing|depicting|displaying|portraying|picturing) {x} (while|when|as) {going} is <bad>
we (don't|do not|never|won't|will not|can't) (show|depict|publish|want to see|want|accept|tolerate|allow|have|print) {x} {going}
we (don't|do not) (want|allow|like|permit) {x} to {base}
we (don't|do not) want {x} to be (shown|seen|depicted|pictured) {going}
(don't|do not|never|please don't|please do not|pls don't) (show|depict|draw|generate|publish|display|let|post|portray) {x} {going}
(don't|do not|never) (let|make|have) {x} {base}
it is (forbidden|prohibited|not allowed|not permitted|unacceptable|not OK|not right|wrong|inappropriate) (for {x} to {base}|to (show|depict|picture|see|portray) {x} {going})
it's (forbidden|prohibited|not allowed|not permitted|unacceptable|not OK|wrong|inappropriate) (for {x} to {base}|to (show|depict|picture|see|portray) {x} {going})
(reject|block|remove|delete|refuse|hide|flag|<reject>) (<imgs> of|pictures of|photos of|pictures where|) {x} {going}
{x} {going} (must|should|may|shall) (not|never) be (shown|seen|depicted|visible|published|accepted)
{x} should (refrain from|abstain from|avoid|stay away from|stop|not be seen) {going}
(avoid|no) (showing |) {x} {going}
no {b} {going}
no {b} {going} <where>
no {b} (who|that) {base}
no {b} (may|should|must|shall|can|is to|are allowed to) {base}
no {b} (may|should|must|shall|can) be (shown|seen|depicted|pictured) {going}
""")
NEITHER_FRAMES = _lines("""
{x} (may|must|should|shall|can) {neither}
{x} (may|must|should|shall|can) {neither} <where>
{x} {be} allowed to {neither}
{x} {be} to {neither}
""")
# Two things in one picture.
PAIR_NAMES = _lines("""
{a} (together with|next to|near|close to|beside|alongside|along with|in the company of|in combination with|combined with|in the same <img> as|side by side with|plus|accompanied by|in one <img> with|right next to|by the side of|around|in the presence of|in the vicinity of|besides|with) {b}
{a} (together with|next to|near|close to|beside|alongside|along with|in the same <img> as|in the presence of) {b}
{a} (and|plus|&|as well as|together with) {b} (together|in one <img>|in the same <img>|side by side|at the same time|in combination|at once|next to each other|in one and the same <img>|in a single <img>|both in one <img>|in one shot|combined|in the same scene|in the same place|in the same photo)
{a} with {b} (nearby|close by|around|next to it|in the same <img>|beside it|at their side|in the background|in sight|present|next to them|in the vicinity)
both {a} and {b}
the combination of {a} and {b}
the combination {a} and {b}
the presence of {a} (near|next to|together with|around) {b}
the mix of {a} and {b}
""")
PAIR_FRAMES = _lines("""
(keep|hold) {a} away from {b}
please keep {a} away from {b}
keep {a} and {b} (apart|separate|away from each other)
{a} (must|should|has to|have to|are to|shall) (be kept|stay|keep|remain) (away from|clear of|far from|apart from) {b}
no {bare_a} (near|next to|around|close to|beside|together with|in the presence of|alongside|in the vicinity of|in the company of|along with|in reach of|where there {be_b}) {b}
no {bare_a} near {b}
no {bare_a} (when|while|if|where|whenever|as long as|once|as soon as) (there {be_b} {b}|{b} {be_b} (around|present|in the <img>|visible|in it|shown|there|in the picture|nearby|in sight|in the same <img>)) (<where>|)
there (must|should|may|shall|can) be no {bare_a} (when|while|if|where|whenever|as long as|once) {b} {be_b} (around|present|in the <img>|visible|in it|shown|there|in the picture|nearby|in sight)
there (must|should|may|shall|can) be no {bare_a} (near|next to|around|close to|beside|together with) {b}
if there {be_a} {a} (in the <img>|in it|in the picture|), there (must|should|may|shall|can) (not be|be no) {bare_b} (in it|)
if (there {be_a} {a}|{a} {be_a} (visible|shown|present|there|around)) (in the <img>|), (no {bare_b} may be <shown>|{b} must not be (<shown>|there)|we can't have {b}|leave out {b}|no {bare_b}|{b} (is|are) <bad>)
where {a} {be_a}, (no {bare_b} (may|should|must|can|shall) be|there must be no {bare_b}|{b} (must|may|should) not be|there (is|must be) no place for {b})
where there {be_a} {a}, (no {bare_b} may be|there must be no {bare_b}|{b} must not be)
(when|whenever|as soon as|once|if|wherever) {a} (appear{s_a}|{be_a} visible|{be_a} in the <img>|{be_a} present|{be_a} around|{be_a} there|show{s_a} up), (no {bare_b}|{b} (is|are) <bad>|{b} must not be there|there must be no {bare_b}|{b} must not be <shown>|leave out {b})
{a} and {b} (must|should|may|shall|can) (not|never) be (in the same <img>|in one <img>|shown together|together|seen together|combined|depicted together|side by side|visible together|in one picture|visible at the same time|next to each other|in a single <img>|mixed|paired|close to each other|near each other|in the same place|put together)
{a} and {b} (must|should|may|shall|can) (not|never) (appear|occur|turn up|be visible|be shown|feature|show up) (together|in the same <img>|in one <img>|side by side|at the same time|in one picture|at once|simultaneously|in combination)
{a} and {b} (do not|don't) (belong|go|fit) (together|in one <img>|in the same <img>|together in one <img>)
{a} and {b} (together|in one <img>|in the same <img>|side by side|combined|at the same time|next to each other) (is|are) <bad>
{a} and {b} (together|in one <img>|in the same <img>|side by side) (would|could|may|might|will) (scare|upset|hurt|offend|confuse|bother|annoy) <audience>
{a} and {b} (together|in one <img>|in the same <img>|side by side|combined): (no|never|reject|delete|block|not allowed|forbidden)
(don't|do not|never|please don't|please do not|pls don't) (combine|mix|pair|bring together|put together|show together|group|join) {a} (and|with) {b} (in one <img>|in the same <img>|together|in a <img>|)
(don't|do not|never|please don't|please never) (put|show|place|draw|depict|have|set|present|display|bring|use) {a} (and|with|next to|beside|together with|near|close to|along with|alongside) {b} (in one <img>|in the same <img>|together|in a <img>|in one picture|)
(we|I) (don't|do not|never|won't|can't) (show|combine|mix|want|accept|depict|have|want to see|tolerate|put) {a} (and|with|next to|together with|near|along with|beside|around) {b} (in one <img>|in the same <img>|together|)
we must not (see|show|have) {a} (beside|next to|near|together with|along with|alongside) {b}
{a} (near|next to|around|close to|beside|together with|in the presence of|alongside|in the company of|along with|in the same <img> as|by the side of|right next to) {b} (is|are|{be_a}) <bad>
{a} (near|next to|around|close to|beside|together with|in the presence of|alongside|along with) {b} (isn't|aren't|is not|are not) (acceptable|ok|allowed|okay|permitted|funny|appropriate|wanted|welcome)
{a} (near|next to|around|close to|beside|together with|in the presence of|alongside|along with) {b}: (no|reject|never|delete|block)
{a} (near|next to|around|close to|beside|together with|in the presence of|alongside) {b}? (No|Never|Not with us|Reject|Block it|Not here|No way)
{a} (must|should|may|shall|can) (not|never) (appear|be|be shown|be seen|be visible|be depicted|occur|be placed|stand|be found|turn up) (with|beside|next to|near|together with|alongside|in the presence of|around|close to|in the vicinity of|along with|by) {b}
<imgs> (which|that) (contain|show|feature|have|include|depict) both {a} and {b} (are <bad>|must be <rejected>|should be <rejected>|are rejected|will be <rejected>)
<imgs> (with|of|showing|containing|that show) {a} (and|together with|next to|near|plus|along with|alongside|as well as) {b} (together|in it|in the same frame|both|at once|) (are <bad>|must be <rejected>|should be <rejected>|are rejected|will be <rejected>)
(an|any|a|the) <img> (must|should|may) not (contain|show|feature|have|include|depict) (both |){a} (and|together with|along with|plus) {b} (together|at the same time|at once|side by side)
(an|any|a|the) <img> (must|should|may) not (contain|show|feature|have|include|depict) both {a} and {b}
the (combination|mix|mixture|pairing|pair|duo) (of |){a} (and|with|plus) {b} (is <bad>|must be avoided|is to be avoided|is a no-go|must not be shown|should be avoided|has to be rejected|isn't allowed)
{a} (plus|+|&) {b}: (delete|no|reject|block|out|forbidden|never|remove)
{a} (plus|+|&) {b} = (no|reject|forbidden|delete|bad)
(reject|block|remove|delete|refuse|hide|flag|<reject>) (it|the <img>|any <img>|<imgs>) (if|when|as soon as|once|where) (both |){a} and {b} (are (visible|in it|present|there|shown|in the <img>)|appear (together|)|can be seen (together|)|show up together)
(reject|block|remove|delete|refuse|hide|flag|<reject>) {a} (near|next to|together with|around|beside|in the presence of|close to) {b}
{a} {be_a} <bad> (near|next to|around|close to|in the presence of|when there {be_b}|if there {be_b}|together with|where there {be_b}|beside|in the same <img> as|in the vicinity of) {b}
{a} {be_a} <bad> (when|if|while|as long as|once|where) {b} {be_b} (around|present|in the <img>|visible|in it|shown|there|nearby)
in the presence of {a}, (no {bare_b} may be <shown>|{b} (is|are) <bad>|there must be no {bare_b}|{b} must not be <shown>|no {bare_b})
{a} in the (presence|company|vicinity|neighbourhood) of {b} (is|are) <bad>
{a} (only|is only allowed|are only allowed|is OK only|may be shown only|are fine only|is allowed only) (if|when|where|as long as) (there {be_b} no {bare_b}|no {bare_b} {be_b} (around|present|visible|in the <img>|there|nearby)|{b} {be_b} not (around|present|visible|there))
{a} {be_a} (fine|ok|allowed|okay|alright|no problem) (as long as|if|provided|when|so long as) (there {be_b} no {bare_b}|no {bare_b} {be_b} (around|present|visible|in the <img>|there|nearby)|{b} {be_b} not (around|present|visible|there))
{a} {be_a} (fine|ok|allowed|okay|alright), but not (near|next to|around|together with|in the presence of|beside|when there {be_b}|with) {b}
{a} must not be within reach of {b}
{a} (must|should) be (out of reach|out of sight) (of|for) {b}
{b} (must|should|may) not (get|come|be) (near|close to|next to|in contact with|around) {a}
{b} (must|should|may) (never|not) be (around|near|close to|next to|in the vicinity of|exposed to|confronted with|in the same <img> as) {a}
(protect|shield|separate) {b} from {a}
there (must|should|may|shall) not be both {a} and {b} (in (the|one|an) <img>|in it|)
either {a} or {b}, (but |)(never|not) both (in one <img>|together|)
""")
PAIR_FRAMES += _lines("""
should (there be {a}|{a} be (visible|there|shown|in the shot|in the <img>|present)) (in the <img>|), (then |)({b} must not be|{b} must not be <shown>|no {bare_b} may be there|there must be no {bare_b}|leave out {b}|{b} {be_b} <bad>)
if {a} {be_a} in the <img>, (then |)({b} must not be|{b} may not be|{b} must be absent|{b} cannot be|{b} have to go)
(whenever|when|if|where) {a} {be_a} (visible|there|shown|present), {b} (must|should|has to|have to) (be absent|be missing|not be there|stay away|be left out|be gone)
{a} and {b} (must|should|have to|are to) (be kept|stay|be shown|appear|be) in (different|separate) <imgs>
(I'd|we'd|I would|we would) (like|prefer|want) {a} and {b} (to be (kept|shown|placed) in (different|separate) <imgs>|to stay apart|apart|separately|not to be combined|never to meet)
{a} and {b} in (one|the same) <img> (is|are) (too much|too much like the <noun>|not what we want|a bad mix|a bad combination|too risky|asking for trouble)
{a} (with|where) {b} (standing by|watching|standing around|sitting there|looking on|close at hand|in reach)(? Absolutely not|? Never|? No|: no| is <bad>| are <bad>)
{a} (lying|standing|left) around (where {b} {be_b}|near {b}|next to {b}|with {b} around) {be_a} <bad>
you (may|must|should|can) not (place|put|draw|show|set|use) {a} in the (vicinity|neighbourhood|presence|company|reach) of {b}
{a} (must|may|should|can) not (share|be on|be in) (a|one|the same|any) <img> with {b}
{a} {be_a} (fine|ok|okay|allowed|alright|permitted|acceptable) only if (no {bare_b} {be_b}|{b} {be_b} not) (in the <img>|visible|there|around|present|nearby)
{a} only (where|when|if) (no {bare_b} {be_b}|{b} {be_b} not) (in the <img>|visible|there|around|present|nearby)
(wherever|where|if) you (see|show|draw) {a}, (don't|do not|never|you must not) (show|draw|add|put) {b}
{a} (are|is) not to be (combined|mixed|paired|shown|placed) with {b}
{a} (have|has) no business (near|around|next to|with) {b}
{a} (have|has) to (stay|be kept|keep) (well |)away from {b}
""")
PASSIVE_FRAMES = _lines("""
{h} <mustnot> be {done} by {x}
{h} <mustnot> be {done} by {x} <where>
{h} {done} by {x} {hbe} <bad>
no {hb} {done} by {x}
no {hb} (may|should|must|shall|can) be {done} by {x}
no {hb} (may|should|must|shall|can) (ever |)be {done} by {x} <where>
<imgs> of {h} (being |){done} by {x} are <bad>
we (don't|do not|never|won't) (show|want|want to see|accept|tolerate) {h} (being |){done} by {x}
(don't|do not|never|please don't) (show|depict|draw|publish) {h} (being |){done} by {x}
it is <bad> (that|if|when) {h} {hbe} {done} by {x}
<reject> {h} (being |){done} by {x}
(<reject> <imgs> where|no <imgs> where|it must not be shown that|avoid <imgs> in which) {h} {hbe} {done} by {x}
""")
HANDS_FRAMES = _lines("""
no {hb} in the hands of {x}
{h} (must|should|may|do|does|shall) not (be|belong|be shown|end up|get) in(to|) the hands of {x}
{h} in the (hands|hand|grip|grasp) of {x} (is|are) <bad>
keep {h} out of the hands of {x}
(don't|do not|never) put {h} in(to|) the (hands|hand) of {x}
{h} in {x}'s (hands|hand) (is|are) <bad>
""")
OTHERS_FRAMES = _lines("""
no {hb} may be {done} by anyone (who isn't|who is not|other than|but|except|apart from) {x}
{h} <mustnot> be {done} by (anyone|anybody|people) (who isn't|who is not|other than|but|except|apart from) {x}
(anyone|anybody|everyone) (who isn't|who is not|other than|but|except|apart from) {x} <mustnot> {base}
(anyone|anybody|everyone) {going} who (isn't|is not) {x} is <bad>
{going} is <bad> unless it is {x} who (does it|does that|does so)
{going} is <bad> unless {x} (do|does) it
{h} may (only be {done} by {x}|be {done} only by {x}|be {done} by {x} only)
{h} (is|are) for {x} only
""")
BESIDE = _lines("""
(near|next to|beside|close to|around|in the presence of|together with|in front of|alongside|in the company of|in the vicinity of) {x}
near {x}
(while|when|as long as|if|where|whenever|as) {x} {be} (around|present|in the <img>|visible|in it|there|nearby|in the same <img>|in the picture|in sight|close by|in the room)
(while|when|if|where) there {be} {x} (in the <img>|around|in it|nearby|in the same <img>)
(in the same <img> as|in one <img> with|when in the company of|in the same picture as) {x}
with {x} (nearby|around|close by|next to them|in the same <img>|in the <img>|present|in the picture|watching|in the background|at their side)
""")
EXCEPT_FRAMES = _lines("""
{s}, {x} being the only exception
{s}, but that does not go for {x}
{s}. That does not go for {x}
{s}, {x} excepted
{s}; {x} are excepted
{s}, though {x} {be} fine
{s}, except {x}
{s} except {x}
{s}, except for {x}
{s} except for {x}
{s}, with the exception of {x}
{s} with the exception of {x}
{s}, apart from {x}
{s} apart from {x}
{s}, save {x}
{s}, save for {x}
{s}, other than {x}
{s}, but not {x}
{s}, {x} excepted
{s}, {x} excluded
{s}, excluding {x}
{s}, not counting {x}
{s} «except {x}»
{s} «exception: {x}»
{s}; exception: {x}
{s}. Exception: {x}
{s}. Exceptions: {x}
{s}. The only exception (is|are) {x}
{s}; the only exception (is|are) {x}
{s}, {x} being the (only |)exception
{s}. This (does not apply|doesn't apply|does not hold|is not true) (to|for) {x}
{s}; this (does not apply|doesn't apply|does not hold) (to|for) {x}
{s}, which (does not apply|doesn't apply) to {x}
{s}, but this (does not|doesn't) (apply|go) (to|for) {x}
{s}. {X} {be} (fine|OK|ok|allowed|okay|exempt|alright|permitted|an exception|acceptable|no problem|excepted|exempted)
{s}; {x} {be} (fine|OK|ok|allowed|okay|exempt|alright|permitted|an exception|acceptable|no problem)
{s}, but {x} {be} (fine|OK|ok|allowed|okay|exempt|alright|permitted|acceptable|no problem)
{s}, {x} {be} (fine|OK|allowed|okay|exempt|permitted|an exception) (though|however|)
{s}. However, {x} {be} (fine|OK|ok|allowed|okay|exempt|alright|permitted|acceptable)
{s}, however {x} {be} (fine|allowed|okay|exempt|permitted|acceptable)
{s}; {x} may
{s}; only {x} may
{s}. Only {x} may
{s}, only {x} (may|can|are allowed to)
{s}, {x} may (though|)
{s}. {X} may
{s}, but {x} may
{s} - except {x}
{s} - {x} {be} (fine|OK|allowed|exempt)
{s}, {x} aside
{s} besides {x}
{s} bar {x}
{s} barring {x}
{s} unless (it is|it's|they are|it concerns|it concerns only|we speak of) {x}
{s}, unless (it is|it's|they are|it concerns|it concerns only|we speak of) {x}
{s}, we make an exception for {x}
{s}. We make an exception for {x}
{s}, exempt {be} {x}
except for {x}, {s}
apart from {x}, {s}
with the exception of {x}, {s}
other than {x}, {s}
not counting {x}, {s}
""")
IT_IS_FRAMES = _lines("""
{s} unless (it is|it's|that is|they are|we are talking about) {x}
{s}, unless (it is|it's|that is|they are|it happens to be) {x}
{s} if (it is|it's) not {x}
{s} as long as it is not {x}
""")
UNLESS_FRAMES = _lines("""
{s} unless {x} {be} (visible|present|in the <img>|in the picture|there|around|shown|nearby|in it|in sight|to be seen|also visible|in the same <img>|with them)
{s}, unless {x} {be} (visible|present|in the <img>|in the picture|there|around|shown|nearby|in it|in sight|to be seen|also visible|in the same <img>)
{s}, unless there {be} {x} (in the <img>|in it|around|in the picture|nearby|too|as well|)
{s} unless there's {x} (in the <img>|in it|around|in the picture|nearby|too|)
{s} unless (we see|you see|you can see|one can see|one sees|it shows|it also shows|the <img> also shows|the <img> shows) {x}
{s}, except (when|if|where|in <imgs> where) {x} {be} (visible|present|in the <img>|there|around|shown|nearby|in it)
{s} except (when|if|where) (there {be} {x}|{x} {be} visible|{x} {be} present|{x} {be} in the <img>|you can see {x})
{s}, except (together with|in the presence of|next to|near|with|in combination with) {x}
{s} except (together with|in the presence of|next to|near|in combination with) {x}
{s} save (where|when|if) {x} {be} (visible|present|there|in the <img>|shown|around)
{s}, save (where|when|if) {x} {be} (visible|present|there|in the <img>|shown|around)
{s} if (no {x}|not {x}) {be} (visible|there|around|in the <img>)
{s} without {x}
{s} (if|when|where|as long as) there {be} no {x} (around|in the <img>|nearby|)
{s}, but (if|when|where|in <imgs> where) {x} {be} (visible|present|there|in the <img>|shown|around) (it is fine|it's ok|it is allowed|that's fine|this is OK|it is okay|it's alright|it's acceptable)
{s}. (If|When|Where) {x} {be} (visible|present|there|in the <img>|shown|around)(,|) (it is fine|it's ok|it is allowed|that's fine|this is OK|it is okay|it's acceptable|this does not apply)
{s}. This does not apply (if|when|where) {x} {be} (visible|present|there|in the <img>|shown|around|nearby)
{s}; this does not apply (if|when|where) {x} {be} (visible|present|there|in the <img>|shown|around|nearby)
{s}. Exception: {x} {be} (visible|present|there|in the <img>|shown|around)
{s} «unless {x} {be} (visible|present|there|in the <img>|shown|around)»
{s}, provided (that |)(no {x} {be}|{x} {be} not) (visible|present|there|in the <img>|around)
unless {x} {be} (visible|present|there|in the <img>|shown|around), {s}
except (when|where|if) {x} {be} (visible|present|there|in the <img>|shown|around), {s}
""")
ONLY_FRAMES = _lines("""
only {x} (may|can|should|are allowed to|must|is allowed to|shall|are permitted to|are supposed to|have the right to) {base}
only {x} (may|can|should|must|shall) be (shown|seen|depicted|pictured|portrayed) {going}
nobody (but|except|other than|besides|apart from|except for) {x} (may|should|can|must|is allowed to|shall) {base}
no one (but|except|other than|besides|apart from|except for) {x} (may|should|can|must|is allowed to|shall) {base}
nobody (may|should|can|must|is allowed to|shall) {base}(,|) (but|except|other than|besides|apart from|except for) {x}
we (only |)show (only |){x} {going}(, nobody else|, no others|)
{going} is (only allowed|allowed only|reserved|only permitted|permitted only|only OK) (for|to) {x}
{going} is for {x} only
{going} is <bad>, (except|unless it is|save|but not) (for|by) {x}
""")
ONLY_THINGS = _lines("""
the only {k} (allowed|permitted|we show|that are allowed|we accept|that may be shown) (is|are) {x}
only {x} (is|are) allowed as {k}
of all {k}(,|) only {x} (is|are|may be) (allowed|shown|permitted)
all {k} (but|except|apart from|other than|bar|save|besides|with the exception of) {x} (is|are) <bad>
all {k} (are|is) <bad> (but|except|apart from|other than|bar|save|besides|with the exception of) {x}
any {k} (but|except|apart from|other than|besides) {x} (is|are) <bad>
no {k} (but|except|apart from|other than|besides|bar|save) {x}
we (show|want|accept|allow) no {k} (but|except|apart from|other than|besides) {x}
""")
ONLY_WHEN = _lines("""
{k} (may|can|should|must) only be (shown|seen|visible|depicted|used) (together with|with|next to|in the presence of|if there {be}|when there {be}|near) {x}
{k} only (together with|in the presence of|if there {be}|when there {be}|with) {x}
{k} (is|are) only (allowed|OK|permitted|fine|acceptable|okay) (together with|in the presence of|if there {be}|when there {be}|with|near|next to) {x}
{k} (is|are) (allowed|OK|permitted|fine|acceptable|okay) only (together with|in the presence of|if there {be}|when there {be}|with|near) {x}
{k} without {x} (is|are) <bad>
no {k} without {x}
""")
ALLOWED_FRAMES = _lines("""
{x} {be} (fine|OK|ok|allowed|okay|alright|permitted|acceptable|no problem|all right|welcome|great|good|not a problem|perfectly fine)
{x} {be} (fine|OK|ok|allowed|okay|alright|permitted|acceptable) (by us|with us|for us|with me|here|of course|I guess)
(you|we|users|authors|anyone) (may|can|are allowed to) (show|post|have|see|draw|use|upload) {x}
we (allow|like|love|accept|show|have nothing against|don't mind|do not mind|tolerate|welcome) {x}
{x} (may|can) be (shown|seen|used|in the <img>|visible|depicted)
I (like|love|don't mind|have nothing against) {x}
yes to {x}
{x}: yes
""")
MAY_FRAMES = _lines("""
{x} (may|can|are allowed to) {base}
{x} (may|can) be (shown|seen|depicted) {going}
{x} {going} (is|are) (fine|OK|ok|allowed|okay|alright|permitted|acceptable|no problem)
(you|we|users|authors) (may|can) show {x} {going}
we (allow|accept|show|don't mind) {x} {going}
it is (fine|OK|allowed|okay|alright) (if {x} {base}|to show {x} {going})
""")
STARTS = _lines("""
<aside>,
<aside>:
<aside>.
<aside>,
we are <quality>:
we are <quality>, so
under our <noun>,
according to the <noun>,
in the <noun>,
with regard to the <noun>,
after the <noun>,
for the <noun>:
thanks to the <noun>,
in view of the <noun>,
following the <noun>,
<why>.
<why>.
please note:
please note that
please remember:
important:
rule:
as (we are <org>|this is <org>|we run <org>),
as <org>,
for <org>
because <why>,
since <why>,
as <why>,
given that <why>,
for (legal|safety|moral|health|ethical|educational|religious|personal|brand|security) reasons,
for the (sake|protection|safety|good) of <audience>,
to (protect|spare|please|respect) <audience>,
dear (team|all|colleagues|moderators|artist|model),
hi,
hello,
hey,
hi team,
on (this|our) (site|platform|page|forum|channel|app),
in (our|this) (app|magazine|shop|catalogue|campaign|newsletter|project|community|game),
we are <org>:
we are <org>, so
we are <org> and
we run <org>, so
it's <org>, so
it is <org>, so
this is <org>, so
we are <org>.
this is <org>.
our <audience> (are|is) (very |)(sensitive|young|strict|religious|easily upset|picky), so
in my (opinion|view|humble opinion|house),
I think
I believe
I'd say
IMO
imho
as a (rule|matter of principle|father|mother|teacher|parent|vegetarian|doctor|reader|moderator|company|family),
and
also,
additionally,
furthermore,
moreover,
last but not least,
first of all,
first,
second,
finally,
one more thing:
one thing:
above all,
by the way,
in general,
generally,
generally speaking,
basically,
once again:
again:
as discussed,
as before,
attention:
warning:
to be clear:
to be honest,
under our (policy|terms|house rules|guidelines),
according to (our policy|the law|the guidelines|our rules|company policy),
by law,
in accordance with the law,
until further notice,
with immediate effect,
as of today,
from now on,
with respect to our brand,
out of respect for <audience>,
<why>, so
<why>, therefore
<why>, thus
<why>, hence
<why>, that's why
<why> and so
<why>:
""")
TAILS = _lines("""
, <aside>
. <aside>
 - <aside>
; <aside>
 for the <noun>
 (in|on|during|for) (our|the|my) <noun>
(,|) <tail>
 <tail>
 <tail>
, <tail>
 <where>
 <where>
 «<where>»
, not <where>
 «<tail>»
""")
REASON_JOINTS = _lines("""
, because <why>
 because <why>
, since <why>
 since <why>
, as <why>
, for <why>
 - <why>
 - <why>
 «<why>»
; <why>
. <why>
: <why>
, <why>
, after all <why>
, seeing that <why>
, given that <why>
 so that {who} (can use our site|are not upset|feel safe|are happy|are not offended|may look at it|don't complain|learn nothing bad|are not hurt|stay calm)
 to (protect|spare|please|respect|not upset|not offend|not frighten) {who}
 out of (respect|consideration|courtesy) for {who}
 for the (sake|protection|safety) of {who}
 for (legal|safety|moral|health|ethical|educational|religious|brand) reasons
 in order to protect {who}
, think of {who}
, please think of {who}
, {who} (complained|use this app|use it too|are watching|would not like it|asked for it|might see it|read this too|are afraid of that|could be upset|insist on it|are our guests)
""")
REASONS = _lines("""
we are <quality>
we are <quality>
<audience> (are|is) <quality>
<audience> (are|is) <quality> and <quality>
our <noun> (is|was|would be|has become) <quality>
the <noun> (is|was|would be) <quality>
we are in the <noun> business
it is about <noun> and <noun>
our <noun> needs a <noun>
the <noun> of our <noun> (is|gets|was) <quality>
this is for the <noun>
we had a <noun> and a <noun>
the <noun> (demands|needs|wants|requires|forbids) it
it is too much like the <noun> of our <noun>
(people|<audience>) (lose|need|expect|respect|like|hate|remember|deserve) <noun>
I am <quality>
my <noun> is <quality>
the client has a <noun>
we (sell|make|print|publish|love|study|produce|rent out|repair|teach) <noun>
we are <org>
we run <org>
this is <org>
it's <org>
it is <org>
this is for <org>
we work for <org>
we advertise for <org>
our sponsor is <org>
our partner is <org>
<audience> use (this|our|the) (app|site|page|platform|service)
small kids use this app
<audience> (look at|read|watch|see|visit) (this|our (site|pages|pictures)|it|them)
<audience> (complained|complain|have complained|might complain|would complain)
<audience> (don't|do not|wouldn't|would not) like (that|it|them|such things)
<audience> (have not|haven't|did not|never) (consented|agreed|asked for it|signed)
<audience> (are|is) (afraid of|scared of|allergic to|sick of|tired of|against) (that|it|them|such things|those)
<audience> could (copy|imitate|get hurt by|be frightened by|be offended by) (that|it|them)
(it|that|this) (would|could|might) (scare|upset|offend|frighten|bother|hurt|confuse|disturb|traumatise) <audience>
(it|that|this) (scares|upsets|offends|frightens|bothers|hurts|confuses|disturbs) <audience>
(it|that|this) (is|would be) (illegal|bad|unhealthy|dangerous|boring|ugly|silly|cruel|unfair|off-brand|misleading|too private|private|embarrassing|risky|wrong|a bad example|bad taste|against the law|forbidden by law|tasteless|unprofessional|expensive|sad|not nice|harmful|old-fashioned|kitschy)
(it|that|this) (is|would be) (too |so |very |really |just |simply |)(bad|unhealthy|dangerous|boring|ugly|silly|cruel|sad|private|depressing|loud|cheap|political|commercial|controversial)
(it|that|this) sets a bad example (for <audience>|)
(it|that|this) (damages|hurts|harms|ruins) (our|the) (brand|reputation|image|name|business|mood) (of the force|)
(it|that|this) has nothing to do with (us|our brand|our product|our topic|our mission)
(it|that|this) makes <audience> (sad|angry|nervous|uncomfortable|cry|feel bad|uneasy|hungry|thirsty)
(drink driving|smoking|drinking|tobacco|alcohol|violence|gambling|fire|speeding) kills
(smoking|drinking|gambling|violence|fire|playing with fire) is (dangerous|bad|unhealthy|harmful|no joke|a sin|addictive|no fun)
(adverts|advertising) for (tobacco|alcohol|weapons|gambling|drugs|it|that) (is|are) (illegal|forbidden|not allowed|restricted) here
our (policy|law|boss|lawyer|insurance|editor|religion|landlord|brand guide|sponsor|contract|licence) (says so|forbids it|requires it|demands it|wants it that way|insists)
the (law|boss|jury|client|authority|ministry|school|police|app store|council|head teacher) (says so|forbids it|requires it|demands it|wants it that way|insists|does not allow it)
parents (have not consented|complained|would be angry|are strict|want it|asked us|trust us)
my (daughter|son|wife|husband|mother|grandma|dog|cat|boss|brother|baby) (is afraid of (them|it|that)|hates (them|it|that)|doesn't like (them|it|that)|is allergic|cried|would cry|had an accident|has nightmares)
we (value|respect|protect|love|care for|take care of|stand for) (our brand|animals|children|life|health|safety|peace|privacy|the environment|nature|families|older people|public transport|good taste)
we (had|got|have had) (trouble|complaints|bad press|a lawsuit|a fine|an accident|enough of that|problems) (because of it|with that|last year|)
we (don't|do not) want (trouble|complaints|bad press|to upset anyone|to be sued|to offend anyone|to lose customers|nightmares)
we want to (be a safe place|stay family-friendly|keep our licence|look professional|be taken seriously|protect <audience>|stay neutral|keep it peaceful)
(these|they|such things|those) (belong to|come from|remind us of) the (competition|past|enemy|war|competitors)
(these|they|such things|those) (are|look) (dangerous|boring|ugly|silly|bad luck|kitschy|private|old-fashioned|trademarked|unhealthy|poisonous|dirty|dull|awful)
it's a campaign (for|against) (public transport|health|peace|safety|drugs|smoking|drinking|violence|road safety|animals|tobacco|gambling|sleep|reading)
safety (first|comes first)
health (first|comes first|matters)
better safe than sorry
rules are rules
people (die|suffer) from (it|that|this)
you never know
we mean it
no offence
I'm (serious|not kidding|a vegetarian|scared|superstitious|a teacher|the boss|new here)
""")
VAGUE_FRAMES = _lines("""
nothing {a}
nothing {a}, please
nothing {a} <where>
no {a} <stuff>
no {a} <stuff>
no {a} <stuff> <where>
no {a} <stuff>(, | )(please|pls|thanks)
please no {a} <stuff>
avoid {a} <stuff>
avoid anything {a}
avoid everything (that is |){a}
avoid being {a}
{a} <stuff> (is|are) <bad>
{a} <stuff> (is|are) <bad> <where>
{a} <stuff> <must> be <rejected>
{a} <stuff> <mustnot> be <shown>
{a} <stuff> <mustnot> (appear|turn up|occur|be there) (<where>|)
{a} <stuff> (has|have) no place (<where>|here)
{a} <stuff> (is|are) not for (our audience|us|<audience>)
(don't|do not|never|please don't|pls don't) (show|post|upload|publish|draw|generate|use|include) (anything {a}|{a} <stuff>|anything that is {a}|anything that looks {a}|something {a}|things that are {a}|what is {a})
(don't|do not) be {a}
<imgs> (must|should|may) (not|never) (be|look|seem|appear|feel|become) (too |) {a}
<imgs> (must|should|may) (not|never) (be|look|seem|appear|feel|become) {a}
(the|an|any|our) <img> (must|should|may) (not|never) (be|look|seem|appear|feel) (too |){a}
it (must|should|may) (not|never) (be|look|seem|appear|feel|get) (too |){a}
(keep|leave) out (anything|everything) {a}
<reject> (anything|everything) {a}
<reject> {a} <stuff>
<reject> (anything|everything|whatever|all) that (is|looks|seems|feels|might be) {a}
(anything|everything|whatever) {a} (is|gets|must be|has to be|should be) <rejected>
(anything|everything) {a} is <bad>
(anything|everything) {a} (must|has to|should) (go|stay out|be left out|be avoided)
keep (it|the <imgs>|our site|the app|everything) free of (anything {a}|{a} <stuff>)
we (don't|do not|never|won't) (want|show|like|allow|accept|need|tolerate|publish|want to see|wish to see) (anything {a}|{a} <stuff>|things that are {a})
I (don't|do not|never) (want|like|need|want to see) (anything {a}|{a} <stuff>)
(make sure|ensure|take care|see to it) (that |)(nothing {a} is <shown>|nothing is {a}|nothing looks {a}|the <imgs> are not {a}|there is nothing {a})
there (must|should|may) be nothing {a} (<where>|)
there (must|should|may) be no {a} <stuff> (<where>|)
if (it is|it's|it looks|a <img> is|a <img> looks) {a}, (reject it|<reject> it|it is <bad>|don't show it|it must go)
{a} <stuff>: (no|never|reject|block|delete)
{a} <stuff>? (No|No thanks|Not here|Never)
(forbidden|banned|prohibited|unwanted): {a} <stuff>
(spare us|spare <audience>) {a} <stuff>
""")
# Vague adjectives and the things that they are said of, where these tell what is meant.
STUFF_OF = {
    "gore": _items("wounds; injuries; cuts; bruises and wounds; accidents with blood; flesh wounds; mutilations"),
    "violence": _items("people; gestures; behaviour; acts; poses; men; scenes; guys; attacks; fights"),
    "scary": _items("faces; symbols; decorations; bones; objects; creatures from the grave; figures"),
    "indecent": _items("poses; scenes; moments; positions; situations; people; nudity"),
    "danger": _items("objects; things; items; tools; stuff; toys; materials; substances in flames"),
    "adult": _items("content; themes; material; scenes; pictures; products; pleasures; stuff"),
}
POOLS["stuff"] = _items("""stuff; things; content; images; scenes; pictures; material; motifs; subjects; items; objects; photos; situations; elements; topics; depictions; details; visuals; themes; imagery; ideas; posts; artwork; acts; behaviour; poses; shots; moments;
    looks; vibes; symbols; actions; activities; pics""")
WISH_FRAMES = _lines("""
{w}
{w}
{w}
{w}
please {w}
{w}, please
{w} <where>
{w} <tail>
we want this: {w}
our principle: {w}
the rule is: {w}
always remember: {w}
(remember|note): {w}
{w} at all times
""")
PLAIN_FRAMES = _lines("""
The image should not depict {x}.
The image should not contain {x}.
The picture must not show {x}.
Images must not depict {x}.
Pictures of {x} are not allowed.
It is forbidden to show {x}.
Do not show {x}.
The image should not include any depiction of {x}.
Images showing {x} are prohibited.
Do not generate images depicting {x}.
{x} must not be visible.
{x} should not be visible in the image.
There should be no image of {x}.
The image must not show {x}.
Images should not show {x}.
The picture should not show {x}.
""")
PLAIN_FRAMES_MANY = _lines("""
The image should not show {x}.
The image must not contain {x}.
Pictures must not show {x}.
Images of {x} are not allowed.
No {x}.
Do not show {x}.
{x} must not be visible.
{x} are not allowed in the image.
Images showing {x} are prohibited.
There should be no {x} in the image.
""")
POOLS["why"] = REASONS

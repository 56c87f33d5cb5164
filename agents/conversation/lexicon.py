"""The words of the trade in Spanish (Río de la Plata) and English, and how they sound.

Keeps secret which words stand for what. What a business sells (products, colours, finishes,
topics) is not here: it comes from its catalogue. Words are compared by `key_of`, so accents,
capitals and the usual confusions of letters (b/v, s/z/c, h, ll/y) need no entries.

A cue is a few words in a row: `~` stands for up to three words of any kind, a word that ends
in `*` for all that begin so.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

# In this order: "ch" is one sound before its h goes.
_SOUNDS: Final = (
    ("ch", "ʧ"),
    ("h", ""),
    ("que", "ke"),
    ("qui", "ki"),
    ("ce", "se"),
    ("ci", "si"),
    ("c", "k"),
    ("q", "k"),
    ("z", "s"),
    ("v", "b"),
    ("ll", "y"),
    ("ge", "je"),
    ("gi", "ji"),
    ("ñ", "n"),
)


def fold(text: str) -> str:
    """The text in lower case and without accents; ñ stays apart from n."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text.lower().replace("ñ", "\0"))
    kept = "".join(char for char in decomposed if not unicodedata.combining(char))
    return kept.replace("\0", "ñ")


@lru_cache(maxsize=8192)
def key_of(word: str) -> str:
    """The folded word as it sounds in Spanish, without doubled letters.

    Words of up to three letters stay as they are: too many would fall together.
    """
    if len(word) <= 3:
        return word
    for letters, sound in _SOUNDS:
        word = word.replace(letters, sound)
    return "".join(letter for at, letter in enumerate(word) if at == 0 or word[at - 1] != letter)


def keys(words: str) -> frozenset[str]:
    return frozenset(key_of(word) for word in words.split())


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _keyed(values: Mapping[str, int]) -> dict[str, int]:
    return {key_of(word): value for words, value in values.items() for word in words.split()}


# --- Chat spellings -----------------------------------------------------------------------

CHAT_SPELLINGS: Final = {
    "q": "que", "k": "que", "ke": "que", "d": "de", "xq": "porque", "pq": "porque",
    "porq": "porque", "tb": "tambien", "tmb": "tambien", "tbn": "tambien", "tambn": "tambien",
    "cto": "cuanto", "cnto": "cuanto", "kuanto": "cuanto", "quanto": "cuanto",
    "presu": "presupuesto", "ppto": "presupuesto", "coti": "cotizacion", "cotiz": "cotizacion",
    "gcias": "gracias", "grax": "gracias", "grcs": "gracias", "gracia": "gracias",
    "thx": "thanks", "tks": "thanks", "ty": "thanks",
    "bns": "buenas", "wenas": "buenas", "wena": "buenas", "ola": "hola", "holis": "hola",
    "porfa": "favor", "porfis": "favor", "plis": "favor", "pls": "please", "plz": "please",
    "xfa": "favor", "xfavor": "favor", "esp": "espesor", "sip": "si", "sii": "si",
    "nop": "no", "nope": "no", "oka": "ok", "okey": "ok", "okay": "ok", "okis": "ok",
    "oki": "ok", "okk": "ok", "okei": "ok", "dle": "dale", "necesit": "necesito",
    "nesesito": "necesito",
    "nececito": "necesito", "vs": "versus", "pa": "para", "ud": "usted", "uds": "ustedes",
    "i'd": "want", "kiero": "quiero", "msj": "mensaje",
    "acpeto": "acepto", "aceto": "acepto", "acepo": "acepto", "then": "entonces",
    "unid": "unidades", "unids": "unidades", "cant": "cantidad",
}  # fmt: skip

# --- Numbers ------------------------------------------------------------------------------

EN_NUMBERS: Final = _words(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fourty fifty sixty seventy eighty "
    "ninety ninty one"
)
NUMBERS: Final = _keyed(
    {
        "dos two": 2, "tres trez three": 3, "cuatro four": 4, "cinco five": 5,
        "seis seiz six": 6, "siete seven": 7, "ocho oxo eight": 8, "nueve nine": 9,
        "diez ten": 10, "once onse eleven": 11, "doce twelve": 12, "trece thirteen": 13,
        "catorce fourteen": 14, "quince fifteen": 15,
        "dieciseis diesiseis sixteen": 16, "diecisiete seventeen": 17,
        "dieciocho eighteen": 18, "diecinueve nineteen": 19,
        "veinte twenty": 20, "veintiuno veintiun": 21, "veintidos": 22, "veintitres": 23,
        "veinticuatro": 24, "veinticinco": 25, "veintiseis": 26, "veintisiete": 27,
        "veintiocho": 28, "veintinueve": 29,
        "treinta trenta thirty": 30, "cuarenta forty fourty": 40,
        "cincuenta cinquenta fifty": 50, "sesenta sixty": 60, "setenta seventy": 70,
        "ochenta eighty": 80, "noventa ninety ninty": 90,
        "treintaicinco treintaycinco": 35, "cuarentaicinco": 45, "setentaicinco setentaycinco": 75,
    }
)  # fmt: skip
HUNDREDS: Final = _keyed(
    {"cien": 100, "ciento": 100, "doscientos doscientas": 200, "trescientos trescientas": 300}
)
HUNDRED_ALONE: Final = keys("cien")  # "cien diez" are two numbers
NEVER_ALONE: Final = keys("ciento")  # "lo siento" sounds the same
HUNDRED_KEYS: Final = keys("hundred")
GROUPS: Final = _keyed(
    {"par pares couple pair pairs": 2, "docena docenas dozen dozens": 12, "decena decenas": 10}
)
UN: Final = {"un": 1, "uno": 1, "una": 1, "one": 1}
ONE_KEYS: Final = frozenset({"un", "uno", "una", "one", "a"})
EN_ONE: Final = frozenset({"one", "a"})
AND_KEYS: Final = frozenset({"y", "e", "and", "i"})
DECIMAL_POINT_KEYS: Final = keys("coma point")
TIMES_KEYS: Final = frozenset({"x", "por", "by", "*", "×"})

# --- Units and what is measured -----------------------------------------------------------

_UNITS_BY_ID: Final = {
    "mm": "mm mms milimetro milimetros milim mili milis millimeter millimeters millimetre "
    "millimetres",
    "cm": "cm cms centimetro centimetros cmts centimeter centimeters centimetre centimetres",
    "m": "m mt mts mtr mtrs ms metro metros meter meters metre metres",
    "m2": "m2 mt2 mts2 mtrs2 metro2 metros2 sqm metraje",
    "ft": "ft feet foot pies",
    "in": "inch inches pulgada pulgadas",
}
UNITS: Final = {word: unit for unit, words in _UNITS_BY_ID.items() for word in words.split()}
UNITS_BY_KEY: Final = {key_of(word): unit for word, unit in UNITS.items()}
SQUARE_KEYS: Final = keys("cuadrado cuadrados cuadrada cuadradas cuad cuadr cuadraditos quadrados")
SQUARE_BEFORE_KEYS: Final = keys("square sq")
LINEAR_KEYS: Final = keys("lineal lineales corridos linear")
HEIGHT_KEYS: Final = keys("alto alta altura high height tall")
COUNT_LABEL_KEYS: Final = keys("cantidad cantidades quantity qty")
_LENGTH_KEYS: Final = keys("largo larga longitud long length profundidad fondo deep depth")
_WIDTH_KEYS: Final = keys("ancho ancha anchura frente wide width")
SIDES: Final = (
    dict.fromkeys(_LENGTH_KEYS, "length")
    | dict.fromkeys(_WIDTH_KEYS, "width")
    | dict.fromkeys(HEIGHT_KEYS, "height")
)
THICKNESS_KEYS: Final = keys("espesor espesores grosor grueso gruesa thick thickness")
AREA_KEYS: Final = keys("area superficie metraje")
PIECE_KEYS: Final = keys(
    "panel paneles plancha planchas placa placas chapa chapas hoja hojas unidad unidades pieza "
    "piezas uni panels sheet sheets board boards piece pieces unit units pcs slabs"
)
PLACE_KEYS: Final = keys(
    "techo techos pared paredes muro muros tramo tramos paño paños pano panos habitacion "
    "habitaciones cuarto cuartos galpon galpones casa casas cabaña cabañas contenedor "
    "contenedores dormitorio dormitorios local locales apartamento "
    "apartamentos galeria deposito alero porche patio terraza entrepiso cielorraso tabique quincho "
    "cochera garage parrillero barbacoa taller fondo cocina baño living oficina roof roofs wall "
    "walls room rooms house houses"
)
SLOPE_KEYS: Final = keys("aguas faldones caidas vertientes")
EACH_KEYS: Final = keys("cada each apiece")
ALL_KEYS: Final = keys("todo todos todas ambos ambas both all")
SIDE_KEYS: Final = keys(
    "lateral lado lados borde bordes costado costados cara caras puntas extremos largos "
    "anchos cortos side sides edge edges"
)
NAMED_SIDES: Final = {
    key_of(word): side
    for side, words in {
        "front": "frontal frente adelante delantero front",
        "back": "trasero atras fondo posterior back rear",
        "left": "izquierdo izquierda left",
        "right": "derecho derecha right",
        "top": "superior arriba top",
        "bottom": "inferior abajo bottom",
    }.items()
    for word in words.split()
}
LATERALS_KEYS: Final = keys("laterales")  # two of them, when no number is given
OTHER_KEYS: Final = keys("otro otra other")
THE_REST_KEYS: Final = keys("otros otras demas resto others rest")
WHOLE_PERIMETER_KEYS: Final = keys(
    "perimetro contorno perimetral perimeter vuelta around alrededor"
)
SUBSTRATE_KEYS: Final = keys(
    "techo techos losa losas pared paredes piso pisos muro muros planchada estructura viga vigas "
    "columna columnas bloque bloques sobre roof slab floor wall"
)

# --- Little words -------------------------------------------------------------------------

FILLER_KEYS: Final = keys(
    "de del el la los las un una uno y e o u a al en con sin por para que lo le les me te se mi "
    "tu su es son era seria serian sea sean esta este esto ese esa eso tipo como unos unas mas "
    "menos o muy bien ahi aca alla hay ya pero si no ni favor entonces bueno tengo tiene tienen "
    "quiero quisiera necesito preciso seria medidas medida espesor ancho largo alto color total "
    "aprox aproximadamente mide miden tamaño mejor ahora vos usted ustedes sino hago hacemos "
    "estaria estarian podria podrian vendria andaria iria alcanza alcanzaria "
    "fuera fuese pongo llevo uso paso seran serán sale queda the of for it is are "
    "and or in on with without my your please need want would like to be this that i size "
    "about approx approximately me have has at"
)
WITHOUT_KEYS: Final = keys("sin without")
REMOVE_KEYS: Final = keys(
    "sacale sacar saca sacame sacarle saco sacamos sacas sacan sacarles quita quitale quitar "
    "quitarle quito quitamos remove drop elimina eliminar"
)
ONLY_KEYS: Final = keys("solo solamente unicamente only just")
NOT_KEYS: Final = (
    frozenset({"no", "sin", "not", "without", "ni", "tampoco", "dont", "don't", "nor"})
    | REMOVE_KEYS
)
# "no quiero isodec", but "no, isodec" and "no isodec" mean that it is to be Isodec.
NOT_WANTED_VERB_KEYS: Final = keys("quiero es era necesito busco want is need sea fuera")
WITH_KEYS: Final = keys(
    "con with incluido incluida incluidos incluidas included including incluyendo mas plus ponele "
    "poneme poner agregale agrega agregar agregame sumale incluile inclui add include"
)
INCLUDED_KEYS: Final = keys("incluido incluida incluidos incluidas included")
OR_KEYS: Final = frozenset({"o", "u", "or", "ó"})
JOIN_KEYS: Final = frozenset(
    {"y", "e", "+", ",", ";", "\n", "mas", "and", "plus", "&", "-", ".", "/"}
) | keys("tambien ademas also otro otra otros otras another")
# They stand between a "no" and what it denies: "no necesito que me lo lleven".
LINKING_KEYS: Final = keys("que me te se lo la los las le les nos hace falta yo nosotros")
ODD_KEYS: Final = keys("pico algo tantos tantas something")  # "4 y pico"
RANGE_KEYS: Final = keys("entre between")
LESS_KEYS: Final = keys(
    "menos restando descontando minus less restarle sacando falta faltan descontale descontar"
)
OPENING_KEYS: Final = keys(
    "hueco huecos abertura aberturas agujero agujeros ventana ventanas puerta puertas claraboya "
    "claraboyas opening openings hole window windows door doors skylight"
)
TOTAL_KEYS: Final = keys("total totales sea serian serían igual equals son")
ARTICLE_KEYS: Final = _words("el la los las del al the un una mi su")
OF_KEYS: Final = frozenset({"de", "en", "of", "in", "del", "para", "for", "e"})

# --- Numbers that measure nothing here ----------------------------------------------------

MONTH_KEYS: Final = keys(
    "enero febrero marzo abril mayo junio julio agosto setiembre septiembre octubre noviembre "
    "diciembre january february march april june july august september october november december"
)
DAY_KEYS: Final = keys(
    "lunes martes miercoles jueves viernes sabado domingo monday tuesday wednesday thursday "
    "friday saturday sunday"
)
TIME_KEYS: Final = keys(
    "dia dias semana semanas mes meses año años ano anos hora horas hs hrs minuto minutos day "
    "days week weeks month months year years hour hours am pm cuotas cuota pagos installments"
)
MONEY_KEYS: Final = keys(
    "$ u$s usd uyu ars pesos peso dolares dolar dollars dollar € euros us$ mangos"
)
# Who refuses one of these refuses no more than what it costs: "no acepto ese precio".
PRICE_KEYS: Final = keys("precio precios price valor costo monto plata importe")
ACCEPT_KEYS: Final = keys("acepto aceptamos aceptar accept")
ORDINAL_ENDINGS: Final = _words("to ta do da er ro ra mo vo no th st nd rd º ° ª")  # "4to piso"
# What has a thickness of its own: "una losa de 12 cm".
WALL_KEYS: Final = keys("losa losas pared paredes muro muros planchada viga vigas bloque bloques")
# A side is to be so much longer or shorter: "sumale 2 metros al largo".
LONGER_KEYS: Final = keys(
    "sumale sumarle sumar suma sumo sumamos agregale agregarle agregar agrega agrego agregamos "
    "agregame ponele alargalo alargar estiralo add mas more extra"
)
SHORTER_KEYS: Final = keys(
    "restale restarle restar resta resto restamos sacale sacarle sacar sacame saco sacamos quitale "
    "quitarle quitar quito quitamos bajale achicalo acortalo menos less"
)

ADDRESS_KEYS: Final = keys(
    "calle ruta km kilometro avenida av avda bulevar bv bvar esquina esq apto apartamento "
    "depto departamento piso solar manzana padron nro numero número tel telefono cel celular "
    "whatsapp street road avenue phone number ruc rut ci cedula pedido"
)
COUNTED_ELSEWHERE_KEYS: Final = keys(
    "personas persona hijos hijo veces vez ventanas ventana puertas puerta cuadras cuadra kilos "
    "precios presupuestos cotizaciones medidas espesores colores productos materiales formas "
    "amigos vecinos empresas lugares locales hermanos pisos plantas ambientes "
    "kilo kg grados litros people times windows window doors door preguntas pregunta consultas "
    "consulta cosas cosa opciones opcion tornillos clavos"
)
COUNTED_BEFORE_KEYS: Final = keys("somos calibre gauge")  # "somos 4", "chapa calibre 26"

# "quiero dos iguales": so many of what was told before.
ALIKE_KEYS: Final = keys("iguales asi esos esas mismos mismas those same")

# Whose wishes are not the customer's: "mi vecino quiere 20 m2 y yo 10x5".
OTHER_PEOPLE_KEYS: Final = keys(
    "vecino vecina vecinos hermano hermana cuñado cuñada amigo amiga suegro suegra primo prima tio "
    "tia padre madre viejo vieja papa mama hijo hija socio socia jefe jefa cliente compañero "
    "compañera sobrino sobrina novio novia marido mujer esposo esposa señora neighbour neighbor "
    "brother sister friend boss uncle cousin father mother son daughter"
)
THEY_WANT_KEYS: Final = keys(
    "quiere quieren necesita necesitan precisa precisan busca pide pidio lleva wants needs"
)
THEY_DID_KEYS: Final = keys("puso pusieron compro compraron hizo hicieron llevo uso pago bought")
I_DID_KEYS: Final = keys(
    "puse pusimos compre compramos pague pagamos hice hicimos coloque colocamos lleve paid had"
)
MYSELF_KEYS: Final = keys("yo mi nosotros i me")
I_WANT_KEYS: Final = keys("quiero queremos necesito necesitamos preciso precisamos want need")
NOW_KEYS: Final = keys("ahora pero now but yo i")

# Which of the things that were told before: "el segundo en gris"; -1 is the last.
ORDINALS: Final = {
    key_of(word): number
    for number, words in {
        0: "primer primero primera first", 1: "segundo segunda second", 2: "tercer tercero tercera",
        3: "cuarto cuarta", 4: "quinto quinta", -1: "ultimo ultima last",
    }.items()
    for word in words.split()
}  # fmt: skip
NO_ORDER_KEYS: Final = keys("vez piso planta time floor cotizacion presupuesto precio quote price")

# What is as it was said of the thing before: all of it, or its size.
SAME_AGAIN: Final[Mapping[str, tuple[str, ...]]] = {
    "one_more": (
        "otro ~ igual",
        "otra ~ igual",
        "uno mas igual",
        "una mas igual",
        "another one ~ same",
        "another ~ like that",
        "one more ~ same",
        "one more like that",
        "same again",
    ),
    "same": (
        "y lo mismo en",
        "y lo mismo de",
        "y lo mismo pero",
        "y lo mismo con",
        "y lo mismo sin",
        "otro lo mismo",
        "another the same",
        "and the same in",
    ),
    "same_size": (
        "misma medida",
        "mismas medidas",
        "mismo tamaño",
        "la misma superficie",
        "los mismos metros",
        "mismas dimensiones",
        "same size",
        "same dimensions",
    ),
}

# --- What the catalogue does not have -----------------------------------------------------

OTHER_COLOURS: Final = {
    key_of(word): word
    for word in _words(
        "rojo roja azul verde negro negra amarillo amarilla naranja marron beige terracota celeste "
        "violeta rosado rosada lila plateado plateada dorado crema turquesa bordo red blue green "
        "black yellow orange brown purple pink silver cream beige"
    )
}
OTHER_PRODUCTS: Final = (
    "lana de vidrio", "fibra de vidrio", "glass wool", "fiberglass", "poliuretano",
    "polyurethane", "polietileno", "polipropileno", "policarbonato", "isopanel", "isoroof",
    "isowall", "isofrig", "isotech", "durlock", "yeso", "drywall", "membrana", "porcelanato",
    "steel frame", "zinc", "xps", "pur", "pir", "corcho", "celulosa", "madera", "osb", "tejas",
    "ladrillos", "cemento", "bloques",
)  # fmt: skip
ROOF_KEYS: Final = keys("techo techos techar cielorraso cielorrasos losa losas roof roofs ceiling")
# Nouns that a product's name may begin with but that tell no product apart.
GENERIC_PRODUCT_KEYS: Final = keys(
    "panel paneles plancha planchas placa placas board boards panels color visto mineral deck "
    "stone rock plast"
)

# --- Names --------------------------------------------------------------------------------

NAME_CUES: Final = (
    "me llamo", "mi nombre es", "nombre", "soy", "habla", "a nombre de", "te habla",
    "my name is", "my name's", "i'm", "i am", "this is", "im",
)  # fmt: skip
NAME_CUES_NEED_CAPITAL: Final = frozenset({"habla", "i'm", "i am", "this is", "im", "nombre"})
NOT_NAME_KEYS: Final = keys(
    "cliente clienta arquitecto arquitecta constructor albañil particular empresa nuevo nueva "
    "vecino hombre mujer dueño dueña encargado encargada comprador carpintero herrero ingeniero "
    "instalador uruguayo argentino argentina jubilado looking interested building trying just "
    "not sorry builder contractor architect here from happy glad sure good fine great ok"
)

# --- Cues of what a customer wants --------------------------------------------------------

# "quiero saber" wants no quote.
ASK_TO_KNOW_KEYS: Final = keys(
    "saber consultar preguntar averiguar info informacion conocer entender know ask understand"
)
QUESTION_KEYS: Final = keys(
    "que cual cuales como cuanto cuanta cuantos cuantas donde cuando quien porque what which how "
    "where when why does do is are can could hay tienen hacen aceptan sirve aguanta"
)

CUES: Final[Mapping[str, tuple[str, ...]]] = {
    "greeting": (
        "hola", "holi", "buenas", "buen dia", "buenos dias", "buenas tardes", "buenas noches",
        "que tal", "como va", "como andan", "como andas", "como estas", "como estan", "buenass",
        "hi", "hello", "hey", "good morning", "good afternoon", "good evening", "alo", "hi there",
        "como les va", "como te va", "como andamos", "buen domingo", "buenas buenas",
        "saludos cordiales", "morning",
    ),
    "quote_request": (
        "cotiz*", "cotic*", "presupuest*", "cuanto ~ sale*", "cuanto ~ sald*", "cuanto ~ cuest*",
        "cuanto ~ cost*", "cuanto ~ val*", "cuanto ~ quedar*", "cuanto ~ queda", "cuanto ~ seria",
        "cuanto ~ sera", "a cuanto", "cuanto es", "cuanto esta", "cuanto ~ cobr*",
        "que precio", "precio", "precios", "preico", "quiero comprar", "necesito", "preciso",
        "necesitaria", "precisaria", "quiero", "quisiera", "querria", "busco", "estoy buscando",
        "ando buscando", "ando precisando", "me pasas ~ precio", "que sale", "que vale",
        "que cuesta", "costo", "costos", "valor", "quote", "quotation", "price", "prices",
        "how much", "estimate", "i need", "i want", "i'd like", "would like", "looking for",
        "cost", "pricing",
        "tirame ~ precio", "tirame ~ numero", "que plata", "cuanta plata", "a como",
        "a que precio", "cuanto va", "cuanto andan", "cuanto anda", "cuanto hay que poner",
        "me pasas ~ presu", "pasame ~ precio", "pasame ~ presupuesto", "me armas ~ presupuesto",
        "me haces ~ presupuesto", "en cuanto ~ sale", "en cuanto ~ queda", "cuanto saldra",
        "cuanto me cobr*", "cuanto ~ piden", "how much would", "what would it cost",
        "give me ~ price",
    ),
    "price_objection": (
        "caro", "cara", "caros", "carisimo", "carisima", "muy caro", "descuento", "descuentos",
        "rebaja", "rebajas", "mejor precio", "mejorar el precio", "mejorar ~ precio",
        "me haces precio", "hacer precio", "se me va ~ presupuesto", "algo mas barato",
        "mas barato", "mas economico", "salado", "salada", "elevado", "elevada", "por las nubes",
        "un disparate", "precio por cantidad", "precio final", "discount",
        "cheaper", "expensive", "better price", "too much money", "bonificacion", "promo",
        "promocion", "oferta", "ofertas",
        "descuentito", "rebajita", "rebajar", "mejorame", "mejoras el precio",
        "mejoran el precio", "es mucho", "mucha plata", "mucho dinero", "es demasiado",
        "me parece mucho", "se pasa ~ presupuesto", "fuera de presupuesto",
        "no me da el presupuesto", "no llego", "lo dejas en", "lo dejas a", "me lo dejas",
        "me lo dejan", "precio de amigo", "precio especial", "precio mayorista", "por mayor",
        "mi presupuesto es", "tengo un presupuesto",
        "mas accesible", "mas baratos", "mas barata", "bajar ~ precio", "bajarme ~ precio",
        "bajame", "baja ~ precio", "te doy", "regateo", "ultimo precio", "mejor oferta", "off",
        "too much", "pricey", "lower the price", "cheap", "out of budget", "over ~ budget",
        "best price",
        "haceme precio", "me haces un precio", "hacen precio", "haces precio",
        "consegui mas barato", "me pasaron mas barato",
    ),
    "payment": (
        "tarjeta", "tarjetas", "cuotas", "transferencia", "efectivo", "forma de pago",
        "formas de pago", "medios de pago", "mercado pago", "mercadopago", "debito", "credito",
        "financia*", "factura", "facturan", "seña", "como pago", "como se paga", "pagar",
        "pay", "payment", "credit card", "installments", "invoice", "bank transfer",
        "visa", "mastercard", "cheque", "cheques", "de contado", "al contado", "en cuotas",
        "plazos de pago", "boleta", "señar", "se puede pagar", "puedo pagar", "cash",
        "how do i pay", "dolares", "en dolares", "descuento por pago", "como hago para pagar",
        "cuenta bancaria", "abitab", "red pagos", "redpagos",
    ),
    "delivery": (
        "hacen envios", "hacen envio", "envian", "mandan al interior", "llegan a",
        "tiempo de entrega", "plazo de entrega", "cuanto demora*", "cuanto tarda*",
        "cuando llega*", "cuando me llega*", "en cuanto tiempo", "demora", "entregan",
        "incluye ~ flete", "incluye ~ envio", "cuanto ~ flete", "cuanto ~ envio", "costo de envio",
        "tienen stock", "hay stock", "stock", "donde retiro", "delivery time", "do you ship",
        "do you deliver", "shipping", "how long ~ delivery", "lead time", "in stock",
        "hacen fletes", "hacen flete", "hacen entregas", "entregas", "entrega", "llega al",
        "llegan al", "mandan a", "despachan", "despacho", "cuanto demoran", "para cuando",
        "hay disponible*", "disponibilidad", "zona de entrega", "se puede retirar",
        "puedo retirar", "tienen para entrega", "cuando lo tendria", "when can ~ deliver",
        "deliver*", "how long does it take", "how soon", "el flete esta incluido",
        "flete incluido ~ no", "lo mandan", "lo llevan",
    ),
    "quote_status": (
        "total de nuevo", "precio de nuevo", "de nuevo el", "otra vez el", "me mandas ~ total",
        "me pasas ~ total", "me mandas la cotizacion", "me reenvias", "reenviame",
        "cual es el total",
        "send me the quote", "total again", "price again",
        "mi cotizacion", "mi presupuesto", "cuanto era", "cuanto fue", "me repetis", "repetime",
        "cual era", "what was", "que paso con", "la cotizacion que", "alguna novedad",
        "novedades", "el presupuesto que", "me habian pasado", "me pasaron ~ cotizacion",
        "estado ~ cotizacion", "estado ~ pedido", "numero de cotizacion", "codigo de cotizacion",
        "my quote", "status of", "any news", "sigue vigente", "hasta cuando vale",
        "cuanto dura ~ cotizacion", "still valid",
        "mi numero de cotizacion", "vigencia", "es valida", "es valido", "valida hasta",
        "hasta cuando", "cuando vence", "vence", "vencio", "sigue en pie", "recordame",
        "me recordas", "cual era el total", "en que quedo", "en que quedamos", "en que anda",
        "como va mi", "como viene mi", "la ultima cotizacion", "ultimo presupuesto",
        "mi ultimo presupuesto", "me pasaste", "me habias pasado", "me dijiste", "how is my",
        "where is my", "my last quote", "expire*", "how much was it",
        "de nuevo la", "de vuelta el", "de vuelta la", "otra vez la", "mandame ~ cotizacion",
        "mandame ~ presupuesto", "mandame ~ precio",
    ),
    "pdf": ("pdf", "imprimirl*", "para imprimir"),
    "acceptance": (
        "la quiero", "los quiero", "las quiero", "la compro", "las compro", "la llevo", "las llevo",
        "las llevo todas", "me la llevo", "me las llevo",
        "me lo quedo", "me la quedo", "acepto", "aceptamos", "lo compro", "los compro",
        "lo quiero", "cerramos", "cerremos",
        "vamos con eso", "vamos con ese", "me sirve", "confirmo", "confirmamos", "confirmado",
        "lo llevo", "me lo llevo", "hacemos el pedido", "quiero encargar", "encargo", "trato hecho",
        "quiero comprarlo", "i accept", "i'll take it", "ill take it", "go ahead", "deal",
        "let's do it", "de acuerdo",
        "aceptada", "aceptado", "la acepto", "lo acepto", "compro", "me los llevo",
        "me quedo con", "lo tomo", "la tomo", "avanzamos", "avancemos", "quiero avanzar",
        "para adelante", "metele", "cerrado", "trato", "hagamoslo", "encargalo", "encargamelo",
        "quiero hacer el pedido", "hago el pedido", "hacer el pedido", "reservame", "reservalo",
        "reservamelo", "la confirmo", "lo confirmo", "confirmada", "confirmar", "confirma",
        "aprobado", "aprobada", "apruebo", "estoy de acuerdo", "me sirve el precio", "me cierra",
        "cerralo", "cerrala", "cerrar ~ trato",
        "dale que va", "vamos", "vamo arriba", "vamos arriba", "vamos nomas", "quiero comprar ya",
        "i'll buy", "we'll take it", "i will take it", "book it", "order it", "place the order",
        "accepted", "accept", "we accept", "i confirm", "confirmed", "let's go", "lets go",
        "sounds good let's", "quiero pagarlo", "lo pago",
        "comprado", "vendido", "mandale", "voy con", "vamos con", "sigamos", "hacemos ese",
        "hacemos esa",
        "encarguemos", "quiero encargarlo", "haceme el pedido", "armame el pedido", "lo reservo",
        "la reservo", "quiero reservar*", "lo encargo", "la encargo", "quiero comprarla",
        "procedamos", "procedan", "sigo adelante", "sigamos adelante", "sold", "i want to order",
        "let's proceed", "proceed", "i'd like to order", "i'll order", "i'd like to proceed",
    ),
    "rejection": (
        "no por ahora", "por el momento no", "compre en otro", "ya consegui", "ya lo consegui",
        "no me interesa", "no me sirve", "no gracias", "no , gracias", "no , muchas gracias",
        "no , thanks", "no , thank you", "dejalo asi", "dejala asi", "ya compre",
        "no lo quiero", "no la quiero", "lo dejo", "ya no lo necesito", "ya no necesito",
        "desisto", "not interested", "no thanks", "no thank you", "never mind", "dejemoslo",
        "cancelar", "cancela", "cancelalo",
        "por ahora no", "lo descarto", "no voy a comprar", "no lo voy a comprar",
        "no me convence", "no acepto", "no lo acepto", "no la acepto", "no aceptamos",
        "no puedo aceptar", "no podemos aceptar", "no puedo aceptarlo", "no puedo aceptarla",
        "don't accept", "do not accept", "can't accept",
        "cannot accept", "rechazo", "la rechazo", "lo rechazo", "ya lo compre",
        "ya compramos", "compre en otro lado", "consegui en otro lado", "lo consegui",
        "me arrepenti", "dejalo", "dejala", "dejalo ahi", "dejala ahi",
        "dejemoslo ahi", "olvidate", "olvidalo", "olvidala", "anulalo",
        "anulala", "lo cancelo", "la cancelo", "cancelala", "cancelo", "no va mas", "no va a ser",
        "forget it", "i'll pass", "i decline", "no longer", "i don't want it", "dont want it",
        "no need", "decline", "no lo necesito", "no la necesito", "al final no", "no quiero nada",
        "no quiero mas",
    ),
    "correction": (
        "dejalo en", "dejala en", "dejalo de", "dejala de", "dejalo con", "dejalo sin", "dejemos",
        "dejame", "volve a", "volvamos a", "volvemos a", "prefiero", "quedo mejor", "quedemos",
        "no mejor", "mejor de", "mejor en", "mejor que", "mejor", "perdon", "perdona", "digo",
        "pase mal", "dije mal", "puse mal", "medi mal", "anote mal", "esta mal", "estan mal",
        "quise decir", "quiero decir", "me equivoque", "me confundi",
        "en realidad", "corrijo", "corregir",
        "correccion", "cambia*", "cambio", "modific*", "que sea", "que sean", "ponelo", "ponele",
        "pone*", "hacelo", "hacela", "en vez de", "en lugar de", "no era", "no son", "sorry",
        "i mean", "i meant", "actually", "rather", "change", "make it", "instead", "correction",
        "pasalo", "quiero cambiar", "algo distinto", "y si fuera", "y si es", "y si lo",
        "y si en vez",
    ),
    "remove_it": (
        "sacalo", "sacala", "sacalos", "sacalas", "sacaselo", "sacaselos", "sacasela",
        "sacaselas", "quitalo", "quitala", "quitalos", "quitalas", "quitaselo", "quitaselos",
        "eliminalo", "eliminalos", "no los pongas", "no lo pongas", "no las pongas",
        "no se los pongas", "no se lo pongas", "remove it", "remove them", "take it off",
        "take them off", "leave it out", "leave them out",
    ),
    "thickest": (
        "el mas grueso", "la mas gruesa", "los mas gruesos", "lo mas grueso", "el mayor espesor",
        "the thickest", "el de mas espesor", "el de mayor espesor", "espesor maximo",
        "el maximo espesor",
    ),
    "thinnest": (
        "el mas fino", "el mas finito", "la mas fina", "la mas finita", "el mas delgado",
        "la mas delgada", "el menor espesor", "the thinnest", "el de menos espesor",
        "el de menor espesor", "espesor minimo", "el minimo espesor",
    ),
    "buying": (
        "como ~ para comprar*", "como ~ para encargar*", "como compro", "como lo compro",
        "como la compro", "como se compra", "como sigo", "como seguimos", "como sigue",
        "como hacemos", "como avanzo", "como avanzamos", "como cierro", "como cerramos",
        "como encargo", "como lo encargo", "como reservo", "como lo reservo", "que tengo que hacer",
        "como procedo", "como procedemos", "donde ~ transfier*", "donde ~ deposit*", "donde pago",
        "donde ~ pago", "a que cuenta", "cbu", "numero de cuenta", "datos para transferir",
        "datos de la cuenta", "datos bancarios", "how do i order", "how do i buy",
        "how can i order", "how can i buy", "how to order", "how to buy", "next step*",
        "what's next", "y ahora que hago", "cual es el siguiente paso", "proximo paso",
        "how do we proceed",
    ),
    "human": (
        "hablar con ~ persona", "hablar con ~ alguien", "hablar con ~ asesor",
        "hablar con ~ vendedor", "hablar con ~ humano", "un asesor", "una asesora", "un vendedor",
        "una vendedora", "un humano", "una persona real", "una persona de verdad", "operador",
        "operadora", "me pueden llamar", "llamame", "llamenme", "atencion humana",
        "human", "real person", "speak to ~ person", "talk to ~ person",
        "talk to someone", "speak to someone", "representative",
        "hablar ~ persona", "hablar ~ asesor", "hablar ~ vendedor", "hablar ~ humano",
        "hablar con ~ encargad*", "hablar con ~ dueñ*", "hablar con ~ gente",
        "hablar con ~ operador*", "hablar con ustedes", "charlar con ~ alguien",
        "charlar con ~ persona", "charlar con ~ vendedor", "comunicas con", "comunicame con",
        "comunicar* con ~ alguien",
        "comunicar* con ~ persona", "comunicar* con ~ vendedor", "comunicar* con ~ asesor",
        "contactar* con ~ persona", "pasame con", "pasarme con", "pasas con",
        "pasar con ~ vendedor", "pasar con ~ asesor", "pasar con ~ persona",
        "pasar con ~ alguien", "pase con", "derivame", "derivar*", "que me atienda", "me atiende",
        "me atienden", "me atienda", "atiende alguien", "que me llame*", "me llame*",
        "me podes llamar", "llamarme", "llamas por telefono", "me llama alguien",
        "persona de carne", "atencion al cliente", "atencion personalizada", "hay alguien",
        "alguien que me", "alguien real", "con alguien real", "persona humana", "ser humano",
        "necesito una persona", "quiero una persona", "prefiero una persona", "prefiero hablar",
        "call me", "speak with ~ person", "talk with ~ person", "talk to a", "speak to a",
        "talk to an", "speak to an", "a real human", "customer service", "someone from",
        "sales rep", "salesperson", "hablar con uno", "asesor", "asesora", "quiero hablar con",
        "persona", "humano", "humana", "vendedor", "vendedora", "agente", "agent", "person",
        "operator", "alguien",
    ),
    "stop": (
        "stop", "dar de baja",
        "darme de baja", "denme de baja", "dame de baja", "unsubscribe", "deja de escribir*",
        "dejen de escribir*", "dejen de mandar*", "no me contacten", "stop writing",
        "stop messaging", "opt out", "no quiero recibir", "baja",
        "no me escrib*", "no me escriban mas", "no escriban mas", "no escribas mas",
        "no me contact*", "no me molest*", "no me jod*", "no me llamen mas",
        "no me mand* ~ mas nada", "no me mand* nada", "no me mand* mas", "no me mand* ~ mensaj*",
        "no me mand* ~ publicidad*", "no me mand* ~ promo*", "no me mand* ~ spam",
        "no me envi* ~ mas nada", "no me envi* nada", "no me envi* mas", "no me envi* ~ mensaj*",
        "no me envi* ~ publicidad*", "no me envi* ~ promo*", "no quiero que me escrib*",
        "no quiero que me mand*", "no quiero que me contact*", "no quiero que me envi*",
        "no quiero ~ mensaj*", "no quiero mas mensajes", "no quiero ~ publicidad*",
        "no quiero spam", "dejen de ~ mensaj*", "deja de ~ mensaj*", "dejen de escrib*",
        "deja de escrib*", "dejen de mand*", "deja de mand*", "dejen de molest*",
        "deja de molest*", "dejen de jod*", "deja de jod*", "dejen de hinch*", "deja de hinch*",
        "dejen de contact*",
        "basta de mensaj*", "basta de escrib*", "saquenme de ~ lista", "sacame de ~ lista",
        "sacarme de ~ lista", "borrame de ~ lista", "borrenme", "borrarme", "borrame",
        "borren mi numero", "borra mi numero", "eliminen mi numero", "eliminame de", "eliminenme",
        "saquen mi numero", "sacame de ~ contactos", "la baja", "mi baja", "baja por favor",
        "baja favor", "desuscrib*", "desuscripcion", "cancelar ~ suscripcion",
        "cancelar suscripcion", "no me interesa recibir", "bloque*", "stop sending",
        "stop texting", "stop contacting", "stop it", "please stop", "remove me", "take me off",
        "don't text", "dont text", "don't write", "dont write", "don't contact", "dont contact",
        "do not contact", "do not write", "do not message", "don't message", "dont message",
        "no more messages", "leave me alone", "quit messaging",
        "no molesten mas", "no molesten", "no molestes",
    ),
    "thanks": (
        "gracias", "graciass", "muchas gracias", "mil gracias", "te agradezco", "muy amable",
        "agradecido", "agradecida", "thanks", "thank you", "thank", "cheers", "genia", "genio",
        "un crack",
        "genial gracias", "se agradece", "agradezco", "te pasaste", "muchisimas gracias",
        "thanks a lot", "appreciate*",
    ),
    "goodbye": (
        "chau", "chao", "adios", "hasta luego", "nos vemos", "hasta mañana", "saludos",
        "hablamos", "bye", "goodbye", "see you", "un abrazo", "abrazo", "que andes bien",
        "tengo que consultar*", "lo tengo que consultar*", "voy a consultar*", "consultarlo con",
        "cualquier cosa te aviso", "te aviso", "despues te digo", "lo pienso", "lo consulto",
        "lo voy a pensar", "i'll think about it", "buen finde", "buena jornada",
        "que tengas ~ dia", "que tengan ~ dia", "buen fin de semana", "hasta pronto",
        "hasta la proxima", "cuidate", "te confirmo", "les confirmo", "les aviso", "lo hablo",
        "lo charlo", "lo veo", "lo pensamos", "dejame pensarlo", "dejame pensar", "let me think",
        "i'll let you know", "talk later",
    ),
    "laughter": ("jaja*", "jeje*", "jiji*", "ja", "je", "lol", "uh", "uy", "ah",
        "eh", "mmm", "mm", "epa", "che", "bo", "ufa", "ups", "oops",
    ),
    "cheapest": (
        "mas barato", "mas barata", "mas economico", "mas economica", "menor precio",
        "menos plata", "mas accesible", "cheapest", "cheaper", "least expensive",
    ),
    "affirm": (
        "si", "dale", "ok", "claro", "perfecto", "listo", "de una", "joya", "buenisimo",
        "exacto", "correcto", "asi es", "tal cual", "obvio", "yes", "yeah", "yep", "yup", "sure",
        "right", "great", "perfect", "eso", "esta bien", "va", "genial", "barbaro", "impecable",
        "de acuerdo", "bueno", "ta", "ta bien",
        "me parece bien", "afirmativo", "por supuesto", "dale dale", "sisi", "si si", "okok",
        "ok ok", "bien",
        "ahi va", "eso mismo", "ese", "esa", "absolutely", "of course", "correct", "that's right",
        "thats right", "cool", "fine", "estamos", "sea", "aja",
    ),
    "deny": ("no", "para nada", "nah", "negativo", "tampoco",
        "nope", "ninguno", "ninguna", "nada", "jamas", "nunca", "no no",
    ),
    "addition": (
        "me falto el", "me falto la", "me falto otro", "me falto otra", "me falto un techo",
        "me faltaba el", "me faltaba la", "me faltaba otro", "me faltaba otra", "me olvide del",
        "me olvide de la", "me olvide el", "me olvide la", "i forgot the",
        "falta el", "falta la", "falta otro", "falta otra", "falto el",
        "falto la", "faltaria el", "faltaria la",
        "ademas", "tambien", "agrega*", "agreg*", "sumale", "suma*", "sumar", "aparte de",
        "also", "add", "as well", "in addition", "plus", "otra cosa mas", "y otro", "y otra",
        "ademas de",
    ),
    "restart": (
        "otra cotizacion", "otro presupuesto", "nueva cotizacion", "nuevo presupuesto",
        "empezar de nuevo", "empecemos de nuevo", "empezar de cero", "arrancar de nuevo",
        "borra todo", "new quote", "another quote", "start over", "start again", "otra consulta",
    ),
    "later": (
        "no se", "no lo se", "nose", "no tengo ni idea", "ni la menor", "no entiendo",
        "no se nada", "i don't understand", "todavia no", "aun no", "no tengo ~ medidas",
        "no tengo ~ medida",
        "despues te paso", "luego te paso", "despues te digo", "mas tarde", "tengo que medir",
        "voy a medir", "i don't know", "dont know", "not sure", "i'll check", "later",
        "no tengo idea", "ni idea", "no tengo el dato", "no me acuerdo", "no las tengo",
        "no la tengo", "no lo tengo", "despues los paso", "despues te las paso", "te las paso",
        "te lo paso despues", "te confirmo despues", "dejame medir", "voy a averiguar",
        "lo averiguo", "tengo que ver", "tengo que averiguar", "dejame ver", "i have no idea",
        "let me check", "let me measure", "no clue", "las mido", "lo mido", "mañana te paso",
        "luego te digo",
    ),
    "any": (
        "cualquiera", "el que sea", "da igual", "me da igual", "es igual", "no importa", "lo mismo",
        "any", "whatever", "doesn't matter", "either", "el comun", "el normal", "standard",
    ),
    "help": (
        "una consulta", "consulta", "consultar", "queria saber", "tengo una duda", "una duda",
        "una pregunta", "me ayudas", "me ayudan", "me podes ayudar", "ayuda", "help",
        "a question", "que podes hacer", "what can you do", "menu",
    ),
    "ask_products": (
        "que productos", "que tienen", "que venden", "que ofrecen", "que opciones", "catalogo",
        "que materiales", "que hay", "que trabajan", "con que trabajan", "lista de productos",
        "what do you sell", "what do you have", "what products", "products", "que aislantes",
        "que manejan", "que tipos", "a que se dedican",
    ),
    "ask_thicknesses": (
        "que espesor*", "cuales espesor*", "espesores", "en que espesor*", "que grosor*",
        "que medidas", "en que medidas", "que medida", "what thickness*", "which thickness*",
        "how thick", "thicknesses", "menos espesor", "mas espesor", "otro espesor", "mas fino",
        "mas grueso", "thinner", "thicker", "de que espesor*", "de cuanto viene*",
        "de cuanto espesor*", "cuanto espesor*",
        "de cuantos milimetros",
    ),
    "ask_colours": (
        "que gris", "que grises", "que blanco", "que blancos", "que tono*",
        "que color*", "en que color*", "cuales color*", "colores", "what colo*", "which colo*",
        "colours", "colors",
    ),
    "ask_finishes": (
        "que terminacion*", "terminaciones", "acabados", "que acabados", "what finishes",
        "finishes", "que es ~ gotero", "como es ~ gotero",
    ),
    "ask_description": (
        "que es", "que son", "de que se trata", "informacion", "info", "caracteristicas",
        "contame de*", "contame mas", "contame sobre", "contame como", "contarme de*",
        "hablame de*", "what is", "what's", "tell me about", "information",
        "ficha tecnica", "como es", "datos tecnicos", "mas datos", "de que esta hecho",
        "que incluye", "que trae", "detalles",
        "como funciona", "para que es", "como viene", "como vienen", "que onda",
        "how does it work", "describe", "de que material",
    ),
    "ask_compare": (
        "diferencia", "diferencias", "cual es mejor", "que es mejor", "cual conviene",
        "cual me conviene", "que me conviene", "conviene", "cual me recomend*", "que me recomend*",
        "recomendas", "recomendan", "recomendarias", "recomendarian", "recomendacion*",
        "recomendame", "recomendar", "recomienda*", "recomiend*", "que le pondrias",
        "que me pondrias", "que pondrias", "que usarias", "que le pongo", "compar*", "versus",
        "difference",
        "which is better", "which one", "recommend", "better", "cual aisla mas", "que aisla mas",
        "cual es la diferencia", "en que se diferencia*", "cual aisla", "cual es mas",
        "que me recomendas", "que me recomiendas", "que recomiendan", "cual recomiendan",
        "cual me sirve", "cual sirve", "cual va mejor", "cual uso", "cual llevo", "cual pongo",
        "cual me llevo", "cual tendria que", "cual deberia",
        "cual seria mejor", "cual rinde", "mejor el de", "vale la pena", "me aconsej*",
        "aconsej*", "que aconsej*", "suggest*", "what do you recommend", "cuanto cambia",
        "mucha diferencia", "aguanta mas", "dura mas", "con # alcanza*", "con # mm alcanza*",
        "# es suficiente", "# is enough",
        "# mm is enough", "# mm es suficiente", "# be enough", "# mm be enough",
    ),
    "ask_price_factors": (
        "precio del m2", "precio por m2", "precio x m2", "cuanto ~ el m2", "cuanto ~ el metro",
        "precio del metro", "precio por metro", "precio x metro", "precio el m2",
        "valor del m2", "valor del metro", "valor por m2", "valor x m2", "costo del m2",
        "costo por m2", "costo x m2", "cuanto m2", "a cuanto ~ m2", "a cuanto ~ metro",
        "a como ~ m2", "a como ~ metro", "que precio tiene el m2", "que precio tiene el metro",
        "cuanto sale x m2", "cuanto sale por m2", "cuanto sale por metro", "cost per m2",
        "price of a square", "how much is a square", "how much per", "lista de precios",
        "price per m2",
        "price per square", "per square meter", "per m2", "precios",
    ),
    "ask_place": (
        "donde estan", "donde queda", "donde quedan", "ubicacion", "direccion", "showroom",
        "donde es", "de donde son", "where are you", "address", "location", "tienen local",
        "donde los encuentro", "donde puedo ver", "donde retiro", "de que parte", "de que zona",
        "donde se encuentran", "en que zona", "where is your", "sucursal*", "donde andan",
    ),
    "ask_hours": (
        "horario", "horarios", "a que hora", "abren", "cierran", "atienden", "opening hours",
        "what time", "business hours",
    ),
    "ask_tax": (
        "iva", "impuesto", "impuestos", "tax", "vat", "taxes", "mas iva", "con iva", "sin iva",
    ),
    "ask_bot": (
        "sos un bot", "sos un robot", "sos robot", "sos bot", "sos una maquina", "sos una persona",
        "sos humano", "sos humana", "sos real", "sos de verdad", "sos una ia", "eres un bot",
        "eres un robot", "hablo con un bot", "hablo con un robot", "hablo con una maquina",
        "hablando con un bot", "hablando con un robot", "hablando con una persona",
        "hablando con una maquina", "are you a bot", "are you a robot", "are you human",
        "are you real", "are you a person", "are you a human", "is this a bot", "quien sos",
        "quien habla", "con quien hablo", "who are you", "como te llamas", "what's your name",
    ),
    "ask_other_data": (
        "cuanto pesa*", "peso", "pesan", "ancho util", "que ancho", "ancho de los paneles",
        "ancho del panel", "ancho tienen", "ancho tiene", "ancho viene*", "medida de los paneles",
        "medidas de los paneles", "cuanto mide*", "que largo", "largo maximo", "granizo",
        "certificacion", "certificad*", "norma", "normas", "densidad", "resistencia mecanica",
        "calibre", "chapa de cuanto", "how heavy", "weight", "weigh", "how wide", "density",
        "se oxida", "oxida*", "panel width", "viene* en paneles de",
    ),
    "ask_work": (
        "ustedes colocan", "ustedes instalan", "hacen la colocacion", "hacen colocacion",
        "hacen la instalacion", "hacen instalacion*", "lo colocan", "los colocan", "lo instalan",
        "los instalan", "colocacion incluida", "incluye ~ colocacion", "incluye ~ instalacion",
        "incluye ~ mano de obra", "mano de obra", "venir a medir", "vienen a medir",
        "pasan a medir", "visita", "visita tecnica", "do you install", "installation included",
        "labour", "labor",
        "cuanto ~ colocacion", "cuanto ~ instalacion", "cuanto ~ colocarlo", "cuanto ~ instalarlo",
    ),
    "ask_other": (
        "por mail", "por correo", "por email", "al mail", "foto", "fotos", "imagen", "imagenes",
        "se puede pisar", "se pisa", "caminar", "se puede subir",
        "transitable", "pisable", "por unidad", "venden suelto",
        "minimo de compra", "compra minima", "minimo que venden", "cuanto es ~ minimo", "by email",
        "photo", "photos", "picture", "pictures", "minimum order", "muestra", "muestras", "sample",
    ),
    "ask_warranty": ("garantia", "garantias", "warranty", "guarantee", "vida util", "cuanto dura",
        "cuantos años dura", "se deteriora", "que duracion", "duracion", "how long does it last",
    ),
}  # fmt: skip

# More ways to ask about a topic, by a name that the catalogue may have for it.
TOPIC_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "insulation": (
        "aisla*", "aislan*", "aislar*", "termic*", "abriga*", "insulat*", "thermal", "calient*",
        "temperatura", "u value", "r value", "valor r",
    ),
    "fire": ("quema*", "arde", "combust*", "burn*", "ignifug*", "llama"),
    "water": ("moja*", "filtra*", "gotea*", "wet", "leak*", "resiste el agua"),
    "sound": ("insonoriza*", "acustic*", "soundproof*", "bulla"),
    "installation": ("instal*", "coloca*", "como se pone", "se coloca", "luz maxima", "apoyos"),
    "uses": ("sirve", "se puede usar", "se usa", "good for", "suitable"),
}  # fmt: skip

# Words that only one of the two languages has.
ES_KEYS: Final = keys(
    "hola buenas buenos dia dias tardes el la los las un una que cual como cuanto cuanta donde "
    "para por con sin y o pero si de del en es son soy tengo tiene quiero quisiera necesito "
    "preciso precio cotizacion presupuesto gracias metros metro largo ancho espesor mejor "
    "perdon techo pared lana roca blanco blanca gris personalizado flete anclajes anclaje gotero "
    "hormigon lados todo paso buscar retiro tambien ademas dale chau listo perfecto sale cuesta "
    "hacen envios milimetros cuadrados "
    "cotizar cotizame me te se lo mi su eso este esta nada mas muy porque cuando quien hay ahora"
)
EN_KEYS: Final = keys(
    "hello hi hey good morning afternoon the an of for and or but with without i you we is are "
    "am need want would like how much what which where when does do can could please thanks thank "
    "stop unsubscribe texting messages message talk human remove list contact writing opt out "
    "quote price cost roof wall white grey gray thick thickness wide long meters metres square by "
    "my your it this that not yes yeah also add another instead change make better panels "
    "rock wool polystyrene delivery shipping anchors freight sides each about of from have any"
)


def vocabulary() -> frozenset[str]:
    """The key of every whole word that means something here; misspellings are led to these."""
    words: set[str] = set()
    for phrases in CUES.values():
        words.update(_whole_keys(phrases))
    for group in (
        UNITS_BY_KEY, SQUARE_KEYS, SQUARE_BEFORE_KEYS, LINEAR_KEYS, SIDES, THICKNESS_KEYS,
        AREA_KEYS, PIECE_KEYS, PLACE_KEYS, SLOPE_KEYS, EACH_KEYS, ALL_KEYS, SIDE_KEYS,
        NAMED_SIDES, LATERALS_KEYS, WHOLE_PERIMETER_KEYS, SUBSTRATE_KEYS, FILLER_KEYS, NOT_KEYS,
        WITH_KEYS, RANGE_KEYS, LESS_KEYS, TOTAL_KEYS, ARTICLE_KEYS, OF_KEYS,
        MONTH_KEYS, DAY_KEYS,
        TIME_KEYS, MONEY_KEYS, ADDRESS_KEYS, COUNTED_ELSEWHERE_KEYS, LONGER_KEYS, SHORTER_KEYS,
        ONLY_KEYS, OPENING_KEYS, MINE_KEYS, OWN_KEYS, EXCEPT_KEYS, ALIKE_KEYS, COUNT_LABEL_KEYS,
        THE_REST_KEYS, ODD_KEYS, OTHER_PEOPLE_KEYS, THEY_WANT_KEYS, THEY_DID_KEYS, I_DID_KEYS,
        I_WANT_KEYS,
        OTHER_COLOURS, QUESTION_KEYS, ES_KEYS, EN_KEYS, NUMBERS, HUNDREDS, NOT_NAME_KEYS,
        PARTS, ANCHOR_KEYS, FREIGHT_KEYS, FREIGHT_VERB_KEYS, FINISH_KEYS, WORDS_OF_THEIR_OWN,
        _whole_keys(PICK_UP_CUES), _whole_keys(OTHER_PRODUCTS), _whole_keys(NAME_CUES),
    ):  # fmt: skip
        words.update(group)
    return frozenset(words)


def _whole_keys(phrases: Iterable[str]) -> set[str]:
    return {
        key_of(fold(word))
        for phrase in phrases
        for word in phrase.split()
        if word != "~" and not word.endswith("*")
    }


ANCHOR_KEYS: Final = keys(
    "anclaje anclajes anclage anclages ancla anclas fijacion fijaciones tornillo tornillos "
    "tornilleria anchor anchors anchoring screws"
)
FREIGHT_KEYS: Final = keys(
    "flete fletes traslado traslados envio envios transporte acarreo freight shipping delivery"
)
FREIGHT_VERB_KEYS: Final = keys("traigan traigas lleven lleves acerquen")
# Of the things only with a "lo" before: "que me mandes el precio" is no freight.
FREIGHT_VERB_OF_IT_KEYS: Final = keys("manden mandes envien envies traer llevar")
IT_KEYS: Final = keys("lo la los las")
# Who has them already needs none: "los anclajes los tengo".
MINE_KEYS: Final = keys("mio mios propio propios cuenta cargo")
EXCEPT_KEYS: Final = keys("menos excepto salvo except")
OWN_KEYS: Final = keys(
    "encargo hago hacemos tengo tenemos consigo consigue compro pongo ponemos aparte own"
)
FINISH_KEYS: Final = keys("terminacion terminaciones acabado acabados finish finishes edge borde")
PICK_UP_CUES: Final = (
    "retiro en", "retiro de", "lo retiramos", "los retiramos", "retirando yo", "retirandolo",
    "paso ~ buscar*", "paso ~ retirar*", "paso ~ levantar*", "pasamos ~ buscar*",
    "pasamos ~ retirar*", "pasamos ~ levantar*", "voy ~ retirar*", "voy ~ levantar*",
    "voy ~ buscarlo", "voy ~ buscarlos", "voy ~ buscarla", "voy ~ buscarlas",
    "vamos ~ retirar*", "vamos ~ levantar*", "lo busca", "los busca", "lo retira", "los retira",
    "lo levanta", "los levanta", "mando a buscar*", "mando a levantar*", "lo vengo a buscar",
    "lo voy a retirar", "lo voy a levantar",
    "me lo llevo yo", "me los llevo yo", "lo llevo yo", "los llevo yo",
    "lo retiro", "los retiro", "la retiro", "las retiro", "retiro yo", "yo retiro",
    "retiro en planta", "retiro en local", "retiramos", "paso a buscar*", "paso a retirar*",
    "lo paso a buscar", "los paso a buscar", "voy a buscar*", "lo busco yo", "los busco yo",
    "lo levanto", "los levanto", "lo levanto yo", "flete por mi cuenta", "envio por mi cuenta",
    "flete propio", "tengo flete", "tengo camioneta", "tengo camion", "pick up", "pick it up",
    "i'll collect", "lo vamos a buscar", "los vamos a buscar",
)  # fmt: skip
# Near to a word of ours, and not that word.
WORDS_OF_THEIR_OWN: Final = keys(
    "gotera goteras siento verdad casa caso cosas tren gente mesa pasa muestro"
)
PARTS_WORDS: Final = {"medio": "0.5", "media": "0.5", "half": "0.5", "cuarto": "0.25"}
PARTS: Final = {key_of(word): part for word, part in PARTS_WORDS.items()}

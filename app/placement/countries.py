"""Roughly where a telephone number's country lies: the last resort of an estimate.

Latitude and longitude of a place near where most of a country's people live, to the degree.
"""

from __future__ import annotations

import phonenumbers

_TABLE = """
AE 24 54|AF 34 69|AL 41 20|AM 40 45|AO -9 14|AR -34 -60|AT 48 16|AU -34 149|AZ 40 49|BA 44 18|BD 24 90|BE 51 4|BF 12 -2|BG 43 24
BH 26 51|BI -3 30|BJ 7 2|BN 5 115|BO -17 -66|BR -21 -46|BS 25 -77|BT 27 90|BW -24 26|BY 54 28|BZ 17 -89|CA 45 -77|CD -5 18|CF 5 19
CG -4 15|CH 47 8|CI 6 -4|CL -33 -71|CM 4 11|CN 32 115|CO 5 -75|CR 10 -84|CU 23 -82|CV 15 -24|CY 35 33|CZ 50 15|DE 51 9|DJ 12 43
DK 56 11|DO 19 -70|DZ 36 3|EC -1 -79|EE 59 25|EG 30 31|ER 15 39|ES 40 -3|ET 9 39|FI 61 25|FJ -18 178|FR 48 3|GA 0 10|GB 52 -1
GE 42 44|GH 6 0|GM 13 -16|GN 10 -13|GQ 3 10|GR 38 23|GT 15 -91|GW 12 -15|GY 7 -58|HK 22 114|HN 15 -87|HR 45 16|HT 19 -72|HU 47 19
ID -7 110|IE 53 -7|IL 32 35|IN 21 78|IQ 33 44|IR 35 52|IS 64 -22|IT 43 11|JM 18 -77|JO 32 36|JP 36 138|KE -1 37|KG 42 74|KH 12 105
KR 37 127|KW 29 48|KZ 46 73|LA 18 103|LB 34 36|LK 7 80|LR 6 -11|LS -29 28|LT 55 24|LU 50 6|LV 57 24|LY 32 14|MA 33 -7|MC 44 7
MD 47 29|ME 42 19|MG -19 47|MK 42 21|ML 13 -7|MM 19 96|MN 48 107|MO 22 114|MR 18 -16|MT 36 14|MU -20 58|MV 4 74|MW -14 34
MX 20 -100|MY 3 102|MZ -20 35|NA -22 17|NE 13 3|NG 8 6|NI 12 -86|NL 52 5|NO 60 10|NP 28 85|NZ -38 175|OM 23 58|PA 9 -80|PE -11 -76
PG -7 146|PH 14 121|PK 31 72|PL 52 19|PR 18 -66|PS 32 35|PT 39 -9|PY -25 -57|QA 25 51|RO 45 26|RS 44 21|RU 55 42|RW -2 30|SA 24 45
SB -9 160|SC -5 55|SD 15 33|SE 59 16|SG 1 104|SI 46 15|SK 48 18|SL 8 -13|SN 15 -17|SO 2 45|SR 6 -55|SS 5 32|SV 14 -89|SY 35 37
SZ -26 31|TD 12 15|TG 6 1|TH 14 101|TJ 38 69|TM 38 58|TN 36 10|TR 39 33|TT 11 -61|TW 24 121|TZ -6 37|UA 49 31|UG 0 33|US 39 -92
UY -35 -56|UZ 41 68|VE 10 -67|VN 16 107|YE 15 45|ZA -27 29|ZM -14 28|ZW -18 31
"""
COORDINATES: dict[str, tuple[float, float]] = {
    code: (float(latitude), float(longitude))
    for code, latitude, longitude in (
        entry.split() for entry in _TABLE.replace("\n", "|").split("|") if entry
    )
}


def whereabouts(number: str | None) -> tuple[float, float] | None:
    """Of a number in E.164 or as a `tel:` URI; None where it says nothing of a place (a `sip:` URI, a satellite)."""
    if not number or number.startswith("sip"):
        return None
    try:
        parsed = phonenumbers.parse(number.removeprefix("tel:"), None)
    except phonenumbers.NumberParseException:
        return None
    return COORDINATES.get(phonenumbers.region_code_for_number(parsed) or "")

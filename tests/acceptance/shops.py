"""The business's other systems as local servers that speak their real contracts.

`faults` are taken one per request, as in `outside_world`: "429" (with Retry-After, where
`retry_after` is set), "500", "502" (a gateway's page), "cut" (the answer ends in the middle),
"expire" (the token that came is good no more).
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from outside_world import World

Document = dict[str, Any]


class _Shop(BaseHTTPRequestHandler):
    server: "Shop"
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        request = {
            "method": self.command,
            "path": unquote(parts.path),
            "query": dict(parse_qsl(parts.query, keep_blank_values=True)),
            "ranges": parse_qs(parts.query).get("ranges", []),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "raw": raw,
        }
        if request["headers"].get("content-type", "").startswith("application/json") and raw:
            request["body"] = json.loads(raw)
        fault = self.server.noted(request)
        if fault == "429":
            retry = {"Retry-After": self.server.retry_after} if self.server.retry_after else {}
            self.answer(429, {"message": "Too many requests"}, retry)
        elif fault == "500":
            self.answer(500, {"message": "Internal error"})
        elif fault == "502":
            self.answer(502, b"<html>Bad gateway</html>")
        else:
            if fault == "expire":
                self.server.tokens.clear()
            if callable(fault):
                fault()
            status, body, headers = self.server.meet(request)
            self.answer(status, body, headers, cut=fault == "cut")

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def answer(
        self, status: int, body: Any, headers: Document | None = None, *, cut: bool = False
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


Told = tuple[int, Any, Document]


class Shop(World):
    """A server with tokens; `granted` counts how many it has given out."""

    def __init__(self) -> None:
        super().__init__(_Shop)
        self.tokens: set[str] = set()
        self.granted = 0

    def grant(self) -> str:
        self.granted += 1
        token = f"token-{self.granted}"
        self.tokens.add(token)
        return token

    def meet(self, request: Document) -> Told:
        raise NotImplementedError

    def bearer(self, request: Document) -> bool:
        scheme, _, token = request["headers"].get("authorization", "").partition(" ")
        return scheme == "Bearer" and token in self.tokens

    def asked(self, path: str) -> list[Document]:
        """The requests to a path that were read."""
        return [each for each in self.read if each["path"] == path]


class JsonApi(Shop):
    """Rows at /rows, by every way of paging; at most `most` rows each time. PUT /rows/KEY."""

    CLIENT, SECRET = "desk", "s3cret"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Document] = []
        self.put: dict[str, Document] = {}
        self.refused: set[str] = set()

    def meet(self, request: Document) -> Told:
        if request["path"] == "/token":
            return self._token(request)
        if not self.bearer(request):
            return 401, {"error": "invalid_token"}, {"WWW-Authenticate": "Bearer"}
        query = request["query"]
        if request["method"] == "PUT":
            key = request["path"].removeprefix("/rows/")
            if key in self.refused:
                return 422, {"error": "not a row of ours"}, {}
            self.put[key] = request["body"]
            self.took(request)
            return 200, {}, {}
        rows = [row for row in self.rows if row.get("updated", "") >= query.get("updated_min", "")]
        size = int(query.get("size", len(rows) or 1))
        if request["path"] == "/all":
            etag = '"' + hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] + '"'
            if request["headers"].get("if-none-match") == etag:
                return 304, b"", {"ETag": etag}
            return 200, rows, {"ETag": etag}
        if request["path"] == "/offset":
            begin = int(query.get("offset", 0))
            return 200, {"data": {"rows": rows[begin : begin + size]}}, {}
        if request["path"] == "/page":
            begin = (int(query.get("page", 1)) - 1) * size
            return 200, {"data": {"rows": rows[begin : begin + size]}}, {}
        if request["path"] in ("/cursor", "/link"):
            after = query.get("after", "")
            later = [row for row in rows if row["id"] > after]
            more = later[size - 1]["id"] if len(later) > size else None
            if request["path"] == "/cursor":
                return 200, {"data": {"rows": later[:size]}, "meta": {"next": more}}, {}
            link = f'</link?after={more}&size={size}>; rel="next"' if more else ""
            return 200, {"data": {"rows": later[:size]}}, {"Link": link} if link else {}
        return 404, {"error": "no such path"}, {}

    def _token(self, request: Document) -> Told:
        basic = base64.b64encode(f"{self.CLIENT}:{self.SECRET}".encode()).decode()
        form = parse_qs(request["raw"].decode())
        right = request["headers"].get("authorization") == f"Basic {basic}"
        if not right or form.get("grant_type") != ["client_credentials"]:
            return 401, {"error": "invalid_client"}, {}
        return 200, {"access_token": self.grant(), "token_type": "Bearer", "expires_in": 3600}, {}


class Shopify(Shop):
    """The GraphQL Admin API, as far as variants go. `available` is what is left of the points."""

    TOKEN = "shpat_0123456789abcdef"
    COST = 100

    def __init__(self) -> None:
        super().__init__()
        self.variants: list[Document] = []
        self.available = 2000

    def variant(self, n: int, price: str, sku: str | None = None, **more: Any) -> Document:
        found = {
            "id": f"gid://shopify/ProductVariant/{n}",
            "sku": f"SKU-{n}" if sku is None else sku,
            "title": "Default Title",
            "price": price,
            "inventoryQuantity": 5,
            "updatedAt": "2026-11-01T00:00:00Z",
            "product": {"id": f"gid://shopify/Product/{n // 10}", "title": f"Panel {n // 10}"},
        } | more
        self.variants.append(found)
        return found

    def meet(self, request: Document) -> Told:
        if not re.fullmatch(r"/admin/api/20\d\d-\d\d/graphql\.json", request["path"]):
            return 404, {"errors": "Not Found"}, {}
        if request["headers"].get("x-shopify-access-token") != self.TOKEN:
            return 401, {"errors": "[API] Invalid API key or access token"}, {}
        cost = {
            "requestedQueryCost": self.COST,
            "throttleStatus": {
                "maximumAvailable": 2000.0,
                "currentlyAvailable": self.available,
                "restoreRate": 100.0,
            },
        }
        if self.available < self.COST:
            self.available += 2 * self.COST
            error = {"message": "Throttled", "extensions": {"code": "THROTTLED"}}
            return 200, {"errors": [error], "extensions": {"cost": cost}}, {}
        body = request["body"]
        query, variables = body["query"], body["variables"]
        if "productVariantsBulkUpdate(" in query:
            data = self._update(variables)
        elif "productVariants(" in query:
            data = self._variants(variables)
        else:
            return 200, {"errors": [{"message": "syntax error"}]}, {}
        return 200, {"data": data, "extensions": {"cost": cost}}, {}

    def _variants(self, variables: Document) -> Document:
        found = sorted(self.variants, key=lambda each: int(each["id"].rpartition("/")[2]))
        asked = variables.get("query") or ""
        if (since := re.search(r"updated_at:>='([^']+)'", asked)) is not None:
            found = [each for each in found if each["updatedAt"] >= since[1]]
        if skus := re.findall(r'sku:"([^"]*)"', asked):
            # The search takes prefixes as well.
            found = [each for each in found if each["sku"].startswith(tuple(skus))]
        if ids := re.findall(r"\bid:(\d+)", asked):
            found = [each for each in found if each["id"].rpartition("/")[2] in ids]
        begin = 0
        if variables.get("after"):
            # A cursor names the row that it comes after.
            last = int(base64.b64decode(variables["after"]))
            begin = sum(int(each["id"].rpartition("/")[2]) <= last for each in found)
        page = found[begin : begin + variables["first"]]
        end = page[-1]["id"].rpartition("/")[2] if page else "0"
        return {
            "productVariants": {
                "nodes": page,
                "pageInfo": {
                    "hasNextPage": begin + len(page) < len(found),
                    "endCursor": base64.b64encode(end.encode()).decode(),
                },
            }
        }

    def _update(self, variables: Document) -> Document:
        self.took(variables)
        errors = []
        for n, wanted in enumerate(variables["variants"]):
            known = [each for each in self.variants if each["id"] == wanted["id"]]
            if not known or known[0]["product"]["id"] != variables["productId"]:
                errors.append({"field": ["variants", str(n), "id"], "message": "does not exist"})
            elif float(wanted.get("price", 0)) < 0:
                errors.append(
                    {"field": ["variants", str(n), "price"], "message": "must be 0 or more"}
                )
            else:
                known[0].update(wanted)
        return {"productVariantsBulkUpdate": {"productVariants": [], "userErrors": errors}}


class MercadoLibre(Shop):
    """A seller's items and questions, with tokens by client credentials or refresh tokens."""

    CLIENT, SECRET, SELLER = "123456", "ml-secret", 419059118

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, Document] = {}
        self.questions: dict[int, Document] = {}
        self.refresh = "TG-first"

    def ask(self, number: int, text: str, buyer: int = 162981404, item: str = "MLU1") -> None:
        self.questions[number] = {
            "id": number,
            "seller_id": self.SELLER,
            "item_id": item,
            "status": "UNANSWERED",
            "text": text,
            "date_created": f"2026-11-27T10:00:{number % 60:02}.000-03:00",
            "from": {"id": buyer},
            "answer": None,
        }

    def meet(self, request: Document) -> Told:
        path, method = request["path"], request["method"]
        if path == "/oauth/token":
            return self._token(request)
        if not self.bearer(request):
            return 401, {"message": "invalid access token", "error": "not_found", "status": 401}, {}
        if path == f"/users/{self.SELLER}/items/search":
            return self._search(request["query"])
        if path == "/items":
            ids = request["query"]["ids"].split(",")
            if len(ids) > 20:
                return 400, {"message": "too many ids"}, {}
            return 200, [self._item(each) for each in ids], {}
        if path.startswith("/items/") and method == "PUT":
            return self._change(path.removeprefix("/items/"), request["body"])
        if path == "/questions/search":
            return self._questions(request["query"])
        if path.startswith("/questions/"):
            question = self.questions.get(int(path.removeprefix("/questions/")))
            if question is None:
                return 404, {"error": "not_found", "status": 404}, {}
            return 200, question, {}
        if path == "/answers" and method == "POST":
            return self._answer(request["body"])
        return 404, {"message": "resource not found", "status": 404}, {}

    def _token(self, request: Document) -> Told:
        form = {name: each[0] for name, each in parse_qs(request["raw"].decode()).items()}
        if (form.get("client_id"), form.get("client_secret")) != (self.CLIENT, self.SECRET):
            return 400, {"error": "invalid_client", "status": 400}, {}
        if form["grant_type"] == "refresh_token":
            # Each is good for one use.
            if form["refresh_token"] != self.refresh:
                return 400, {"error": "invalid_grant", "status": 400}, {}
            self.refresh = f"TG-{self.granted + 1}"
        return (
            200,
            {
                "access_token": self.grant(),
                "token_type": "Bearer",
                "expires_in": 21600,
                "user_id": self.SELLER,
                "refresh_token": self.refresh,
            },
            {},
        )

    def _search(self, query: Document) -> Told:
        if query.get("search_type") != "scan":
            return 400, {"message": "use scan"}, {}
        begin = int(query.get("scroll_id") or 0)
        size = int(query.get("limit", 50))
        ids = sorted(self.items)[begin : begin + size]
        scroll = str(begin + len(ids)) if ids else None
        return 200, {"seller_id": str(self.SELLER), "results": ids, "scroll_id": scroll}, {}

    def _item(self, item_id: str) -> Document:
        item = self.items.get(item_id)
        if item is None:
            return {"code": 404, "body": {"id": item_id, "error": "not_found"}}
        return {"code": 200, "body": item}

    def _change(self, item_id: str, body: Document) -> Told:
        item = self.items.get(item_id)
        if item is None:
            return 404, {"error": "not_found", "status": 404}, {}
        if item["status"] == "closed":
            cause = [{"code": "item.status.invalid"}]
            return 400, {"error": "validation_error", "status": 400, "cause": cause}, {}
        item.update(body)
        self.took({"id": item_id} | body)
        return 200, item, {}

    def _questions(self, query: Document) -> Told:
        if query.get("seller_id") != str(self.SELLER) or query.get("api_version") != "4":
            return 400, {"message": "seller_id and api_version are needed"}, {}
        found = [
            each
            for _, each in sorted(self.questions.items())
            if each["status"] == query.get("status", each["status"])
        ]
        begin, size = int(query.get("offset", 0)), min(int(query.get("limit", 50)), 50)
        return (
            200,
            {"total": len(found), "limit": size, "questions": found[begin : begin + size]},
            {},
        )

    def _answer(self, body: Document) -> Told:
        question = self.questions.get(body["question_id"])
        if question is None:
            return 404, {"message": "Question not found", "error": "not_found", "status": 404}, {}
        if question["status"] != "UNANSWERED":
            return (
                400,
                {
                    "message": f"Question {question['id']} is not unanswered",
                    "error": "not_unanswered_question",
                    "status": 400,
                },
                {},
            )
        if len(body["text"]) > 2000:
            return 400, {"error": "invalid_length", "status": 400}, {}
        question["status"] = "ANSWERED"
        question["answer"] = {"text": body["text"], "status": "ACTIVE"}
        self.took(body)
        return 200, question, {}


def service_account() -> Document:
    """A service account's key file, without `token_uri`."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "client_email": "desk@project.iam.gserviceaccount.com",
        "private_key_id": "k1",
        "private_key": pem.decode(),
    }


class GoogleSheets(Shop):
    """One spreadsheet of the Sheets API v4, and the token endpoint of service accounts."""

    ID = "1aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"

    def __init__(self) -> None:
        super().__init__()
        self.sheets: dict[str, list[list[Any]]] = {}
        self.before_append: list[Callable[[], None]] = []

    def meet(self, request: Document) -> Told:
        path, method = request["path"], request["method"]
        if path == "/token":
            form = {name: each[0] for name, each in parse_qs(request["raw"].decode()).items()}
            if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
                return 400, {"error": "unsupported_grant_type"}, {}
            claims = form["assertion"].split(".")[1]
            told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
            # Whatever the address: google-auth names Google's.
            assert told["aud"] == "https://oauth2.googleapis.com/token"
            assert told["exp"] > time.time()
            assert "https://www.googleapis.com/auth/spreadsheets" in told["scope"]
            return (
                200,
                {"access_token": self.grant(), "expires_in": 3599, "token_type": "Bearer"},
                {},
            )
        if not self.bearer(request):
            return self._error(401, "UNAUTHENTICATED")
        base = f"/v4/spreadsheets/{self.ID}"
        if path == base:
            properties = [
                {
                    "properties": {
                        "sheetId": n,
                        "title": title,
                        "index": n,
                        "sheetType": "GRID",
                        "gridProperties": {"rowCount": 1000, "columnCount": 26},
                    }
                }
                for n, title in enumerate(self.sheets)
            ]
            return 200, {"spreadsheetId": self.ID, "sheets": properties}, {}
        if path == f"{base}/values:batchUpdate" and method == "POST":
            assert request["body"]["valueInputOption"] == "RAW"
            for each in request["body"]["data"]:
                self._write(each["range"], each["values"])
            self.took(request["body"])
            return 200, {"spreadsheetId": self.ID}, {}
        if path == f"{base}/values:batchGet":
            return 200, {"valueRanges": [self._range(each) for each in request["ranges"]]}, {}
        if path.startswith(f"{base}/values/"):
            where = path.removeprefix(f"{base}/values/")
            if where.endswith(":append") and method == "POST":
                return self._append(where.removesuffix(":append"), request)
            if method == "GET":
                assert request["query"]["valueRenderOption"] == "UNFORMATTED_VALUE"
                return 200, self._range(where), {}
            if method == "PUT":
                assert request["query"]["valueInputOption"] == "RAW"
                self._write(where, request["body"]["values"])
                self.took(request["body"])
                return 200, {"updatedRange": where}, {}
        return self._error(404, "NOT_FOUND")

    @staticmethod
    def _error(status: int, code: str) -> Told:
        return status, {"error": {"code": status, "message": code, "status": code}}, {}

    def _place(self, where: str) -> tuple[list[list[Any]], int, int | None, int, int | None]:
        title, _, cells = where.partition("!")
        sheet = self.sheets[title.strip("'").replace("''", "'")]
        if not cells:
            return sheet, 0, None, 0, None
        first, _, last = cells.partition(":")
        begin = re.fullmatch(r"([A-Z]*)([0-9]*)", first)
        end = re.fullmatch(r"([A-Z]*)([0-9]*)", last or first)
        assert begin
        assert end
        return (
            sheet,
            int(begin[2] or 1) - 1,
            int(end[2]) if end[2] else None,
            _column(begin[1]) if begin[1] else 0,
            _column(end[1]) + 1 if end[1] else None,
        )

    def _range(self, where: str) -> Document:
        sheet, top, bottom, left, right = self._place(where)
        rows = [list(row[left:right]) for row in sheet[top:bottom]]
        for row in rows:
            while row and row[-1] == "":
                row.pop()
        while rows and not rows[-1]:
            rows.pop()
        # As the real one does it: nothing there, no `values`.
        return {"range": where, "majorDimension": "ROWS"} | ({"values": rows} if rows else {})

    def _write(self, where: str, values: list[list[Any]]) -> None:
        sheet, top, _, left, _ = self._place(where)
        for n, row in enumerate(values):
            while len(sheet) <= top + n:
                sheet.append([])
            line = sheet[top + n]
            while len(line) < left + len(row):
                line.append("")
            for m, cell in enumerate(row):
                if cell is not None:
                    line[left + m] = cell

    def _append(self, where: str, request: Document) -> Told:
        assert request["query"]["valueInputOption"] == "RAW"
        assert request["query"]["insertDataOption"] == "INSERT_ROWS"
        if self.before_append:
            self.before_append.pop(0)()
        sheet, *_ = self._place(where)
        while sheet and not any(sheet[-1]):
            sheet.pop()
        sheet.extend(
            [["" if cell is None else cell for cell in row] for row in request["body"]["values"]]
        )
        self.took(request["body"])
        return 200, {"updates": {"updatedRows": len(request["body"]["values"])}}, {}


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1

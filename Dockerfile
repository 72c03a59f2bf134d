# One image for every process of Mizan: migrate, api, worker, beat.
FROM python:3.13-slim-trixie AS build
WORKDIR /build
COPY requirements/runtime.txt requirements/runtime.txt
RUN python -m venv /opt/mizan \
    && /opt/mizan/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY requirements/runtime.in requirements/runtime.in
COPY ledger ledger
COPY products products
COPY integrations integrations
COPY api api
RUN /opt/mizan/bin/python -m pip install --no-cache-dir --no-index --no-deps --no-build-isolation .

FROM python:3.13-slim-trixie
# the close pack on paper: letters that the fonts within the program lack
RUN apt-get update && apt-get install --yes --no-install-recommends fonts-noto-core && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/mizan --shell /usr/sbin/nologin mizan
COPY --from=build /opt/mizan /opt/mizan
ENV PATH=/opt/mizan/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER mizan
WORKDIR /var/lib/mizan
EXPOSE 8000
ENTRYPOINT ["mizan"]
CMD ["--help"]
